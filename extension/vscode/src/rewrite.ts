/**
 * How a launch configuration of each debugger becomes one that runs under `sidestage exec`: pure, no editor in it.
 *
 * The program is started by a wrapper and not by an environment variable: the kernel's filter must be there before the
 * program's first instruction. Each debugger has a place for that: a command line before the interpreter (Python, Node), or
 * the path of a tool, for which a small script stands (Go, Java, gdb, lldb).
 */

export type Launch = Record<string, unknown> & { type: string; request: string; name: string };

export interface Plug {
  /** `sidestage exec ... --`, to be followed by the program's own command line. */
  readonly command: readonly string[];
  /** A script that runs `program` under `command` with the arguments that it is given; its path. */
  wrapper(program: string): string;
}

export type Rewritten = { launch: Launch } | { refused: string };

type Rule = (launch: Launch, plug: Plug) => Rewritten;

const RULES: Record<string, Rule> = {
  python: debugpy,
  debugpy,
  node,
  "pwa-node": node,
  go: (launch, plug) =>
    launch["mode"] === "remote"
      ? { refused: "mode remote attaches to a program that runs already; use mode auto, debug, test or exec" }
      : tool("dlvToolPath", "dlv")(launch, plug),
  java: tool("javaExec", "java"),
  cppdbg: (launch, plug) =>
    launch["MIMode"] === "lldb" ? tool("miDebuggerPath", "lldb-mi")(launch, plug) : tool("miDebuggerPath", "gdb")(launch, plug),
  "lldb-dap": tool("debugAdapterExecutable", "lldb-dap"),
  gdb: tool("gdbpath", "gdb"),
  lldb: () => ({ refused: "CodeLLDB starts programs from within the editor; use the debugger type lldb-dap or cppdbg" }),
};

/** Types whose launches can be plugged in. */
export const TYPES: readonly string[] = Object.keys(RULES);

/** `launch` as it must be to run plugged in, or why it can't. */
export function rewrite(launch: Launch, plug: Plug): Rewritten {
  if (launch.request !== "launch") {
    return { refused: "only launched programs can be plugged in, not those that a debugger attaches to" };
  }
  const rule = RULES[launch.type];
  if (!rule) {
    return { refused: `debuggers of type ${launch.type} are not known; run the program in a plugged terminal` };
  }
  return rule(launch, plug);
}

/** debugpy takes a command line as `python`, and a plain interpreter for the launcher, which must not be plugged in. */
function debugpy(launch: Launch, plug: Plug): Rewritten {
  const given = launch["python"] ?? launch["pythonPath"] ?? "python3";
  const python = Array.isArray(given) ? given.map(String) : [String(given)];
  const changed: Launch = { ...launch, python: [...plug.command, ...python] };
  changed["debugLauncherPython"] ??= python[0];
  changed["debugAdapterPython"] ??= python[0];
  delete changed["pythonPath"];
  return { launch: changed };
}

/** js-debug runs `runtimeExecutable runtimeArgs program args`, and finds the process by NODE_OPTIONS, which passes through. */
function node(launch: Launch, plug: Plug): Rewritten {
  const [first, ...rest] = plug.command;
  const runtime = typeof launch["runtimeExecutable"] === "string" ? launch["runtimeExecutable"] : "node";
  const given = Array.isArray(launch["runtimeArgs"]) ? launch["runtimeArgs"] : [];
  return { launch: { ...launch, runtimeExecutable: first, runtimeArgs: [...rest, runtime, ...given] } };
}

function tool(key: string, usual: string): Rule {
  return (launch, plug) => {
    const given = launch[key];
    return { launch: { ...launch, [key]: plug.wrapper(typeof given === "string" && given ? given : usual) } };
  };
}

/** A POSIX shell script that runs `program` under `command`. */
export function script(command: readonly string[], program: string): string {
  return `#!/bin/sh\nexec ${[...command, program].map(quote).join(" ")} "$@"\n`;
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
