import com.sun.net.httpserver.HttpServer;
import java.io.*;
import java.net.*;
import java.nio.ByteBuffer;
import java.nio.channels.*;

public class Server {
    static void told(String line, InetSocketAddress peer) {
        if (line != null && line.startsWith("GET ")) System.out.println(line.split(" ")[1] + " " + name(peer) + " " + name(peer));
    }

    static String name(InetSocketAddress peer) {
        String host = peer.getAddress().getHostAddress();
        try { return peer.getAddress() instanceof Inet6Address ? host.replaceAll("(^|:)(0(:|$)){2,}", "::") : host; } finally { System.out.flush(); }
    }

    public static void main(String[] args) throws Exception {
        if (args[0].equals("http")) {
            var server = HttpServer.create(new InetSocketAddress(8080), 0);
            server.createContext("/", exchange -> {
                told("GET " + exchange.getRequestURI(), exchange.getRemoteAddress());
                exchange.sendResponseHeaders(200, 5); exchange.getResponseBody().write("local".getBytes()); exchange.close();
            });
            server.start(); System.out.println("listening");
        } else if (args[0].equals("socket")) {
            var server = new ServerSocket(8080); System.out.println("listening");
            while (true) try (var socket = server.accept()) {
                told(new BufferedReader(new InputStreamReader(socket.getInputStream())).readLine(), (InetSocketAddress) socket.getRemoteSocketAddress());
                socket.getOutputStream().write("HTTP/1.0 200 OK\r\n\r\nlocal".getBytes());
            } catch (IOException e) { System.err.println(e); }
        } else {
            var selector = Selector.open(); var server = ServerSocketChannel.open(); server.bind(new InetSocketAddress(8080));
            server.configureBlocking(false); server.register(selector, SelectionKey.OP_ACCEPT); System.out.println("listening");
            while (true) {
                selector.select();
                for (var key : selector.selectedKeys()) {
                    if (key.isAcceptable()) { var c = server.accept(); if (c != null) { c.configureBlocking(false); c.register(selector, SelectionKey.OP_READ); } continue; }
                    var channel = (SocketChannel) key.channel(); var in = ByteBuffer.allocate(999); int n = channel.read(in);
                    if (n > 0) { told(new String(in.array(), 0, n).split("\r\n")[0], (InetSocketAddress) channel.getRemoteAddress()); channel.write(ByteBuffer.wrap("HTTP/1.0 200 OK\r\n\r\nlocal".getBytes())); }
                    channel.close();
                }
                selector.selectedKeys().clear();
            }
        }
    }
}
