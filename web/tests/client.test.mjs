// The client against two stand-ins that speak its language by hand, byte for byte: what is asked, answered, refused and cut
// off. Needs `npm run build` first.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { WebSocket, WebSocketServer } from "ws";

import { connect } from "../pkg/node.js";

const bytes = (...parts) => Buffer.concat(parts.map((part) => Buffer.from(typeof part === "number" ? [part] : part)));
const text = (string) => bytes(string.length, Buffer.from(string));
const floats = (...values) => Buffer.from(Float64Array.from(values).buffer);
const elements = (...values) => Buffer.from(BigUint64Array.from(values).buffer);

/** Three numbers in, two out, in the ring of 64 bits with 16 after the point. */
const SPEC = bytes(
  ...[new Uint8Array(32).fill(1), new Uint8Array(32).fill(2), text("securenn"), [64, 16]],
  ...[1, text("prediction-client"), text("x"), [1, 3], floats(-1, 1), [1, 0, 0]],
  ...[1, text("prediction-client"), [1, 2], 16],
);
/** The same with a masked input: each server hands out a seed for each sample. */
const MASKED = bytes(SPEC.subarray(0, 114), 2, SPEC.subarray(115));
/** Rounds, bytes sent, from the crypto producer, dealt ahead, on the wire; the plan's four; microseconds. */
const STATS = bytes([7], [100], [0], [11], [0], [0, 0, 0, 0], [5]);
/** 1.5 and -2, shared. */
const OUTPUTS = [elements(1n << 63n, 5n), elements((1n << 63n) + 98304n, BigInt.asUintN(64, -131072n - 5n))];

/** A server whose answer to each kind of request can be replaced. */
class StandIn {
  asked = [];
  answers = {};

  async listen(index) {
    this.server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: ([first]) => first });
    await new Promise((resolve) => this.server.on("listening", resolve));
    this.url = `ws://127.0.0.1:${this.server.address().port}/client`;
    this.server.on("connection", (socket, request) => {
      this.protocol = socket.protocol;
      this.path = request.url;
      socket.on("message", (message) => {
        const kind = ["list", "describe", "ask", "part"][message[0]];
        this.asked.push(kind);
        const session = message.subarray(kind === "describe" ? 2 : 1).subarray(0, 16);
        const answer = this.answers[kind] ?? StandIn.usual[kind];
        answer(socket, session, index, message);
      });
    });
  }

  static usual = {
    list: (socket, session) => socket.send(bytes(0, session, 1, text("net"), text("securenn"), [1, 3], [1, 2])),
    describe: (socket, session) => socket.send(bytes(1, session, SPEC, new Uint8Array(32))),
    ask: () => {},
    part(socket, session, index) {
      socket.send(bytes(2, session, 0, 16, OUTPUTS[index]));
      socket.send(bytes(3, session, STATS));
    },
  };
}

const servers = [new StandIn(), new StandIn()];
const open = (options = {}) => connect({ server0: servers[0].url, server1: servers[1].url, WebSocket, ...options });
const input = Float32Array.of(0.25, -1, 1);

/** The error of a promise that must fail, and the client closed. */
async function failure(promise) {
  const error = await promise.then(
    () => assert.fail("it should have failed"),
    (error) => error,
  );
  return { code: error.code, party: error.party, message: error.message };
}

before(() => Promise.all(servers.map((server, index) => server.listen(index))));
after(() => {
  for (const { server } of servers) {
    server.clients.forEach((client) => client.terminate());
    server.close();
  }
});

test("it lists, splits, joins and predicts", async () => {
  const client = await open();
  assert.equal(servers[0].protocol, "selkie.client.3");
  assert.deepEqual(await client.models(), [{ name: "net", protocol: "securenn", inputShape: [3], outputShape: [2] }]);
  const [one, two] = [await client.split("net", input), await client.split("net", input)];
  assert.notDeepEqual(one, two);
  assert.deepEqual(await client.join("net", one), input);
  const { ms, session, ...answer } = await client.predict("net", input);
  assert.deepEqual(answer, { values: Float32Array.of(1.5, -2), shape: [1, 2], protocol: "securenn", rounds: 7, onlineBytes: 200, offlineBytes: 22, clientBytes: 32 + 24 + 32 });
  assert.match(session, /^[0-9a-f]{32}$/);
  assert.ok(ms > 0);
  client.close();
  assert.equal((await failure(client.predict("net", input))).code, "usage");
});

test("a protocol can be picked for a client, and for one prediction", async () => {
  const wanted = [];
  const describe = (socket, session, index, message) => {
    // Version, session and name stand before it.
    wanted.push(message.subarray(2 + 16 + 1 + "net".length).toString("latin1"));
    StandIn.usual.describe(socket, session, index, message);
  };
  servers.forEach((server) => (server.answers = { describe }));
  for (const [connected, options, asked] of [
    [{}, {}, "\x00"],
    [{}, { protocol: "securenn" }, "\x01\x08securenn"],
    [{ protocol: "fss" }, {}, "\x01\x03fss"],
    [{ protocol: "fss" }, { protocol: "table" }, "\x01\x05table"],
  ]) {
    const client = await open(connected);
    wanted.length = 0;
    await client.predict("net", input, options);
    assert.deepEqual(wanted, [asked, asked]);
    client.close();
  }
  servers.forEach((server) => (server.answers = {}));
});

test("a masked input waits for both servers' masks, and both are sent the same", async () => {
  const parts = [];
  const masked = {
    describe: (socket, session) => socket.send(bytes(1, session, MASKED, new Uint8Array(32))),
    ask(socket, session, index) {
      const late = () => {
        assert.deepEqual(parts, [], "nothing leaves before both masks are there");
        socket.send(bytes(5, session, 0, 32, new Uint8Array(32).fill(index + 1)));
      };
      setTimeout(late, 50 * index);
    },
    part(socket, session, index, message) {
      parts.push(message.subarray(18).toString("hex"));
      StandIn.usual.part(socket, session, index);
    },
  };
  servers.forEach((server) => (server.answers = masked));
  const client = await open();
  assert.deepEqual(await client.models(), [{ name: "net", protocol: "securenn", inputShape: [3], outputShape: [2] }]);
  const { values, clientBytes } = await client.predict("net", input);
  assert.deepEqual(values, Float32Array.of(1.5, -2));
  assert.equal(clientBytes, 2 * 32 + 2 * 24 + 32);
  assert.equal(parts.length, 2);
  assert.equal(parts[0], parts[1]);
  const [one, two] = [await client.split("net", input), await client.split("net", input)];
  assert.notDeepEqual(one, two);
  assert.deepEqual(await client.join("net", one), input);
  parts.length = 0;
  for (const count of [31, 33]) {
    const ask = (socket, session) => socket.send(bytes(5, session, 0, count, new Uint8Array(count)));
    servers[0].answers = { ...masked, ask, part: () => {} };
    const next = new AbortController();
    const error = client.predict("net", input, { signal: next.signal }).catch((error) => error);
    if (count > 32) {
      assert.deepEqual([(await error).code, (await error).party], ["peer", "server0"]);
    } else {
      setTimeout(() => next.abort(), 100);
      assert.equal((await error).name, "AbortError", "it waits for what is missing");
    }
  }
  servers.forEach((server) => (server.answers = {}));
  client.close();
});

test("what does not fit is refused before any of it is sent", async () => {
  const client = await open();
  const bad = [
    [Float32Array.of(0, Number.NaN, 0), {}, /number 1 is not a finite number/],
    [Float32Array.of(0, 0, Number.POSITIVE_INFINITY), {}, /number 2 is not a finite number/],
    [Float32Array.of(0, 0), {}, /2 values for the input x/],
    [Float32Array.of(0, 0, 1.5), {}, /1\.5 for the input x, in row 0, column 2, whose range is -1 to 1/],
    [input, { batch: 2 }, /3 values for the input x/],
    [input, { batch: 0.5 }, /whole number/],
    [[0, 0, 0], {}, /Float32Array/],
  ];
  for (const [values, options, message] of bad) {
    servers.forEach((server) => (server.asked = []));
    const error = await failure(client.predict("net", values, options));
    assert.equal(error.code, "usage");
    assert.match(error.message, message);
    for (const { asked } of servers) {
      assert.ok(!asked.includes("ask") && !asked.includes("part"), String(asked));
    }
  }
  assert.deepEqual((await client.predict("net", input)).values, Float32Array.of(1.5, -2), "the client goes on");
  client.close();
});

test("a server's refusal is told in its words", async () => {
  servers[1].answers = {
    describe: (socket, session) => socket.send(bytes(4, session, 1, 1, 1, text("no model of that name is deployed"))),
  };
  const client = await open();
  const error = await failure(client.predict("net", input));
  servers[1].answers = {};
  assert.deepEqual(error, { code: "refused", party: "server1", message: "no model of that name is deployed" });
  client.close();
});

test("a server that goes away is named with its address", async () => {
  servers[1].answers = { part: (socket) => socket.terminate() };
  const client = await open();
  const error = await failure(client.predict("net", input));
  servers[1].answers = {};
  assert.deepEqual([error.code, error.party], ["peer", "server1"]);
  assert.ok(error.message.includes(servers[1].url), error.message);
  assert.deepEqual(await failure(client.models()), error, "the client stays over");
});

test("a server that is not there is named with its address", async () => {
  const error = await failure(open({ server1: "ws://127.0.0.1:9/client" }));
  assert.deepEqual([error.code, error.party], ["peer", "server1"]);
  assert.match(error.message, /ws:\/\/127\.0\.0\.1:9/);
});

test("an address without a path is where parties listen", async () => {
  const origins = servers.map(({ url }) => new URL("/", url).href);
  const client = await connect({ server0: origins[0], server1: origins[1].replace(/\/$/, ""), WebSocket });
  assert.deepEqual(servers.map(({ path }) => path), ["/client", "/client"]);
  client.close();
});

test("nonsense is the sender's fault", async () => {
  for (const nonsense of [[9, 9, 9], [], new Uint8Array(70_000), "text"]) {
    servers[0].answers = { list: (socket) => socket.send(typeof nonsense === "string" ? nonsense : Buffer.from(nonsense)) };
    const error = await failure(open());
    assert.deepEqual([error.code, error.party], ["peer", "server0"]);
  }
  servers[0].answers = {};
});

test("a signal gives one prediction up, and the next one works", async () => {
  servers[0].answers = { part: () => {} };
  const client = await open();
  const abort = new AbortController();
  const error = client.predict("net", input, { signal: abort.signal }).catch((error) => error);
  setTimeout(() => abort.abort(), 50);
  assert.equal((await error).name, "AbortError");
  servers[0].answers = {};
  assert.deepEqual((await client.predict("net", input)).values, Float32Array.of(1.5, -2));
  client.close();
});
