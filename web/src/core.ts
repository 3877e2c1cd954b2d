// What needs no server: typed faces of the compiled core's synchronous functions.

import { attempt } from "./failure.js";
import type { Local } from "./types.js";
import type { Core } from "./wasm.js";

export function face(core: Core): Local {
  return {
    rasterise(strokes) {
      const points = Float32Array.from(strokes.flat(2));
      const lengths = Uint32Array.from(strokes, (stroke) => stroke.length);
      return core.rasterise(points, lengths);
    },
    split: (values) =>
      attempt(() => {
        const shares = core.split(values);
        const { share0, share1 } = shares;
        shares.free();
        return { share0, share1 };
      }),
    join: ({ share0, share1 }) => attempt(() => core.join(share0, share1)),
    load(bytes) {
      const network = attempt(() => core.Clear.load(bytes));
      return {
        logits: (input) => attempt(() => network.logits(input)),
        free: () => network.free(),
      };
    },
  };
}
