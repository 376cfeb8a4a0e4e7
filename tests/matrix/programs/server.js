const cluster = require("cluster"), http = require("http"), net = require("net"), { Worker, isMainThread } = require("worker_threads");
const plain = (host) => host.replace("::ffff:", "");
const tell = (path, socket) => console.log(path, plain(socket.remoteAddress), plain(socket.address().address) === "10.77.0.10" || socket.address().address === "fd77::10" ? plain(socket.remoteAddress) : socket.address().address);
const serve = (done) => http.createServer((q, r) => { tell(q.url, q.socket); r.end("local"); }).listen(8080, done);
const listening = () => console.log("listening");

const how = process.argv[2];
if (how === "http") serve(listening);
else if (how === "cluster") {
  if (process.argv[3] === "none") cluster.schedulingPolicy = cluster.SCHED_NONE;
  if (cluster.isPrimary) { for (let n = 0; n < 3; n++) cluster.fork(); let up = 0; cluster.on("listening", () => ++up === 3 && listening()); } else serve();
} else if (how === "worker") { if (isMainThread) new Worker(__filename, { argv: process.argv.slice(2) }); else serve(listening); }
else if (how === "net") net.createServer((socket) => {
  socket.write("220 I speak first\r\n"); socket.on("error", () => {});
  socket.once("data", (d) => { tell(String(d).split(" ")[1], socket); socket.end(); });
}).listen({ port: 8080, host: "::" }, listening);
