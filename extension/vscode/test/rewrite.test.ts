import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import test from "node:test";

import { failure } from "../src/cli";
import { rewrite, script, TYPES, type Launch, type Plug } from "../src/rewrite";

const plug: Plug = { command: ["sidestage", "exec", "--"], wrapper: (program) => `/wrap/${program}` };

function launch(type: string, more: Record<string, unknown> = {}): Launch {
  return { type, request: "launch", name: "x", ...more };
}

function rewritten(given: Launch): Launch {
  const changed = rewrite(given, plug);
  assert.ok("launch" in changed, JSON.stringify(changed));
  return changed.launch;
}

test("Python: the debuggee is wrapped, launcher and adapter are not", () => {
  const changed = rewritten(launch("debugpy", { python: ["/venv/python", "-X", "dev"], program: "app.py" }));
  assert.deepEqual(changed["python"], ["sidestage", "exec", "--", "/venv/python", "-X", "dev"]);
  assert.equal(changed["debugLauncherPython"], "/venv/python");
  assert.equal(changed["debugAdapterPython"], "/venv/python");
  assert.equal(changed["program"], "app.py");
});

test("Python: an old pythonPath counts", () => {
  const changed = rewritten(launch("python", { pythonPath: "/old/python" }));
  assert.deepEqual(changed["python"], ["sidestage", "exec", "--", "/old/python"]);
  assert.ok(!("pythonPath" in changed));
});

test("Node: runtime and its arguments stand behind the wrapper", () => {
  const changed = rewritten(launch("pwa-node", { runtimeExecutable: "tsx", runtimeArgs: ["--watch"], program: "a.ts" }));
  assert.equal(changed["runtimeExecutable"], "sidestage");
  assert.deepEqual(changed["runtimeArgs"], ["exec", "--", "tsx", "--watch"]);
  assert.deepEqual(rewritten(launch("node"))["runtimeArgs"], ["exec", "--", "node"]);
});

for (const [type, key, usual, more] of [
  ["go", "dlvToolPath", "dlv", { mode: "auto" }],
  ["java", "javaExec", "java", {}],
  ["cppdbg", "miDebuggerPath", "gdb", {}],
  ["cppdbg", "miDebuggerPath", "lldb-mi", { MIMode: "lldb" }],
  ["lldb-dap", "debugAdapterExecutable", "lldb-dap", {}],
] as const) {
  test(`${type}: ${key} is a script that runs ${usual}`, () => {
    assert.equal(rewritten(launch(type, more))[key], `/wrap/${usual}`);
    assert.equal(rewritten(launch(type, { ...more, [key]: "/own/tool" }))[key], "/wrap//own/tool");
  });
}

test("what can't be plugged in says why", () => {
  for (const given of [
    launch("lldb"),
    launch("go", { mode: "remote" }),
    launch("chrome"),
    { ...launch("node"), request: "attach" },
  ]) {
    const changed = rewrite(given, plug);
    assert.ok("refused" in changed && changed.refused.length > 20, given.type);
  }
});

test("no launch is changed in place", () => {
  for (const type of TYPES) {
    const given = Object.freeze(launch(type));
    rewrite(given, plug);
  }
});

test("the script passes every argument on as it is", () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "sidestage-"));
  try {
    const file = path.join(folder, "tool");
    fs.writeFileSync(file, script([process.execPath, "-p", "process.argv.slice(1).join('|')", "--"], "a b'c$d"), { mode: 0o755 });
    assert.equal(execFileSync(file, ["x y", "$HOME", "'q'"], { encoding: "utf8" }), "a b'c$d|x y|$HOME|'q'\n");
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});

test("a failure's cause and cure are found in what the command said", () => {
  const error = failure("noise\nsidestage: no target\n  name one: -t process/PID\n");
  assert.deepEqual([error.cause, error.cure], ["no target", "name one: -t process/PID"]);
  assert.equal(failure("").cause, "sidestage failed without a word");
});
