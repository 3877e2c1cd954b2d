// The protocols: one may be picked, and what each one that was tried has cost.

import type { Prediction } from "selkie";

import { element } from "./skins.js";

/** Above these bytes a figure is shown without decimals. */
const COARSE = 10_000;

/** What the crypto producer learns besides the sizes of the network's layers. */
const LEARNS: Readonly<Record<string, string>> = {
  securenn:
    "; and, as securenn takes it into every query: when somebody asks, and blinded comparisons, random but for one zero at a random place, or none, which tells it nothing",
};

/** What an answer of this protocol is worth, where it is not as good as in clear. */
const APPROXIMATES: Readonly<Record<string, string>> = {
  pond: "pond cannot ask “is this above zero?”. A polynomial takes that question's place, fitted to numbers like those that the example drawings lead to: its answer is near the one in clear, not the same, and a drawing unlike them all may be misread.",
};

export class Protocols {
  readonly #group = element("protocols");
  readonly #rows = this.#group.querySelector("tbody") as HTMLElement;
  readonly #learns = element("producer-learns");
  readonly #approximates = element("approximates");
  readonly #pick: () => void;
  #picked: string | undefined;

  constructor(pick: () => void) {
    this.#pick = pick;
  }

  /** The one that is to run; nothing before it is known which there are. */
  get picked(): string | undefined {
    return this.#picked;
  }

  /** Shows those that can be picked, the first one picked unless another was; and why others cannot. */
  offer(names: readonly string[], refused: Readonly<Record<string, string>>): void {
    const picked = names.find((name) => name === this.#picked) ?? names[0];
    this.#rows.replaceChildren(
      ...names.map((name) => this.#row(name, name === picked)),
      ...Object.entries(refused).map(([name, why]) => without(name, why)),
    );
    this.#group.hidden = names.length === 0;
    this.#set(picked);
  }

  /** Fills the row of the protocol that ran. */
  tried({ protocol, ms, onlineBytes, offlineBytes, rounds }: Prediction): void {
    const row = [...this.#rows.children].find((row) => (row as HTMLElement).dataset["protocol"] === protocol);
    const cells = row?.querySelectorAll("td") ?? [];
    const figures = [ms.toFixed(0), kilobytes(onlineBytes), kilobytes(offlineBytes), String(rounds)];
    for (const [i, cell] of [...cells].entries()) {
      cell.textContent = figures[i] ?? "";
    }
  }

  #row(name: string, checked: boolean): HTMLElement {
    const [row, head] = begin(name);
    const [label, radio] = [document.createElement("label"), document.createElement("input")];
    Object.assign(radio, { type: "radio", name: "protocol", value: name, checked });
    radio.addEventListener("change", () => {
      this.#set(name);
      this.#pick();
    });
    label.append(radio, ` ${name}`);
    head.append(label);
    for (let i = 0; i < 4; i++) {
      row.append(document.createElement("td"));
    }
    return row;
  }

  #set(name: string | undefined): void {
    this.#picked = name;
    this.#learns.textContent = LEARNS[name ?? ""] ?? "";
    this.#approximates.textContent = APPROXIMATES[name ?? ""] ?? "";
  }
}

/** The row of a protocol that cannot be picked. */
function without(name: string, why: string): HTMLElement {
  const [row, head] = begin(name);
  const cell = document.createElement("td");
  cell.colSpan = 4;
  row.className = "refused";
  head.textContent = name;
  cell.textContent = why;
  row.append(cell);
  return row;
}

function begin(name: string): [HTMLElement, HTMLElement] {
  const [row, head] = [document.createElement("tr"), document.createElement("th")];
  row.dataset["protocol"] = name;
  head.scope = "row";
  row.append(head);
  return [row, head];
}

function kilobytes(bytes: number): string {
  return (bytes / 1000).toLocaleString("en", { maximumFractionDigits: bytes < COARSE ? 1 : 0 });
}
