// Carries out one plan (a file that SIDESTAGE_TEST_PLAN names): a breakpoint, a start, and for each stop what an expression is
// worth there. Tells of it in lines of JSON; goes on from a stop when the plan's file `go` is there.
"use strict";
const fs = require("node:fs");
const vscode = require("vscode");

exports.activate = async () => {
  const plan = JSON.parse(fs.readFileSync(process.env.SIDESTAGE_TEST_PLAN, "utf8"));
  const tell = (event) => fs.appendFileSync(plan.out, JSON.stringify(event) + "\n");
  let stopped = false;
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  try {
    vscode.debug.registerDebugAdapterDescriptorFactory("debugpy", {
      createDebugAdapterDescriptor: () => new vscode.DebugAdapterExecutable(plan.python, ["-m", "debugpy.adapter"]),
    });
    vscode.debug.registerDebugAdapterTrackerFactory("*", {
      createDebugAdapterTracker: (session) => ({
        onDidSendMessage: async (message) => {
          if (message.type !== "event") return;
          if (message.event === "terminated") tell({ terminated: session.name });
          if (message.event === "output" && message.body?.category !== "telemetry") tell({ output: message.body?.output });
          if (message.event !== "stopped") return;
          if (stopped) return; // requests that came meanwhile: the first one tells it all
          stopped = true;
          const { threadId } = message.body;
          const { stackFrames } = await session.customRequest("stackTrace", { threadId, levels: 1 });
          const frame = stackFrames[0];
          const { result } = await session.customRequest("evaluate", { expression: plan.expression, frameId: frame.id, context: "watch" });
          tell({ stopped: frame.name, line: frame.line, result });
          while (!fs.existsSync(plan.go)) await wait(100);
          vscode.debug.removeBreakpoints(vscode.debug.breakpoints);
          await session.customRequest("continue", { threadId });
          tell({ continued: true });
        },
      }),
    });
    await vscode.extensions.getExtension("sidestage.sidestage").activate();
    const program = vscode.Uri.file(plan.launch.program);
    await vscode.window.showTextDocument(program);
    vscode.debug.addBreakpoints([new vscode.SourceBreakpoint(new vscode.Location(program, new vscode.Position(plan.line - 1, 0)))]);
    const started = await vscode.debug.startDebugging(vscode.workspace.workspaceFolders[0], plan.launch);
    tell({ started });
    while (!fs.existsSync(plan.stop)) await wait(100);
    tell({ stopping: vscode.debug.activeDebugSession?.name });
    await vscode.debug.stopDebugging();
    tell({ ended: true });
  } catch (error) {
    tell({ failed: String(error?.stack ?? error) });
  }
};
