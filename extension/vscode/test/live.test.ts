import assert from "node:assert/strict";
import test from "node:test";

import { Live, type Event } from "../src/live";

function lived(...events: Event[]): Live {
  const live = new Live();
  for (const event of events) {
    live.take(event);
  }
  return live;
}

const ABOUT: Event = { type: "about", target: "deployment/orders" };
const REQUEST: Event = { type: "request", id: 1, method: "GET", path: "/a", peer: ["10.0.0.1", 5] };

test("a request grows with its answers and their difference", () => {
  const live = lived(
    ABOUT,
    REQUEST,
    { type: "answer", id: 1, side: "target", status: 200, ms: 1.25 },
    { type: "answer", id: 1, side: "local", status: 500, ms: 30 },
    { type: "compared", id: 1, differences: [["status", "200", "500"]] },
    { type: "answer", id: 99, side: "local", status: 200, ms: 1 },
  );
  const [group] = live.groups();
  assert.equal(group?.label, "Requests");
  assert.deepEqual(group.entries, [
    {
      id: 1,
      label: "GET /a",
      description: "from 10.0.0.1 · target 200 in 1.3 ms · local 500 in 30 ms · 1 different",
      icon: "diff",
    },
  ]);
});

test("outgoing, names, files and words", () => {
  const live = lived(
    ABOUT,
    { type: "begin", hostname: "orders-1" },
    { type: "link", rtt: 12.4 },
    { type: "connect", id: 1, kind: "tcp", host: "10.0.0.2", name: "db", port: 5432, errno: 0, ms: 2 },
    { type: "connect", id: 2, kind: "unix", path: "/run/x", errno: 2, ms: 2 },
    { type: "dns", name: "db", addresses: ["10.0.0.2"] },
    { type: "open", path: "/etc/x", errno: 2 },
    { type: "env", variables: { B: "2", A: "1" } },
    { type: "say", text: "hello" },
    { type: "something new" },
  );
  assert.deepEqual(
    live.groups().map((group) => [group.label, group.entries.map((entry) => entry.label)]),
    [
      ["Outgoing", ["/run/x", "db:5432"]],
      ["DNS", ["db"]],
      ["Files", ["/etc/x"]],
      ["Environment", ["A", "B"]],
      ["Messages", ["hello"]],
    ],
  );
  assert.equal(live.summary(), "deployment/orders (orders-1) · 12 ms");
});

test("only the newest are kept, all are counted", () => {
  const live = lived(ABOUT, ...Array.from({ length: 150 }, (_, n) => ({ ...REQUEST, id: n, path: `/${n}` })));
  const [group] = live.groups();
  assert.equal(group?.entries.length, 100);
  assert.equal(group.entries[0]?.label, "GET /149");
  assert.equal(group.description, "150");
});

test("the end is told", () => {
  const live = lived(ABOUT);
  live.ended = true;
  assert.equal(live.summary(), "deployment/orders · ended");
  assert.equal(new Live().summary(), "starting");
});
