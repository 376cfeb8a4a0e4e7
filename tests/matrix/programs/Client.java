import java.io.*;
import java.net.*;
import java.net.http.*;
import java.nio.*;
import java.nio.channels.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;

public class Client {
    static String text(InputStream in) throws IOException { return new String(in.readAllBytes(), StandardCharsets.UTF_8); }

    public static void main(String[] args) throws Exception {
        System.out.println(System.getenv("GREETING") + " " + InetAddress.getLocalHost().getHostName());
        System.out.println(InetAddress.getByName("db.staging.internal").getHostAddress() + " " + InetAddress.getByName("db").getHostAddress());
        try { InetAddress.getByName("nowhere.staging.internal"); } catch (UnknownHostException e) { System.out.println(e.getMessage()); }

        System.out.print(Files.readString(Path.of("/srv/config.txt")));
        System.out.println(Files.size(Path.of("/srv/big")) + " " + Files.getPosixFilePermissions(Path.of("/srv/config.txt")));
        try (var names = Files.list(Path.of("/srv/folder"))) { names.sorted().forEach(System.out::println); }
        try (var names = Files.walk(Path.of("/srv"))) { names.filter(p -> !p.toString().contains("tree")).sorted().forEach(System.out::println); }
        System.out.println(new File("/srv/folder").isDirectory() + " " + new File("/srv/none").exists() + " " + Path.of("/srv/link").toRealPath());
        try { new FileInputStream("/srv/none"); } catch (FileNotFoundException e) { System.out.println(e.getMessage()); }
        try (var channel = FileChannel.open(Path.of("/srv/big"))) {
            MappedByteBuffer map = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
            int sum = 0; while (map.hasRemaining()) sum += map.get() + 1;
            System.out.println("mapped " + sum + " " + channel.size());
            var part = ByteBuffer.allocate(10); System.out.println(channel.read(part, 299_995));
        }
        try (var file = new RandomAccessFile("/srv/config.txt", "r")) { file.seek(7); System.out.println(file.readLine()); }

        try (var socket = new Socket("db.staging.internal", 7000)) {
            socket.getOutputStream().write("socket".getBytes()); socket.shutdownOutput();
            System.out.println(text(socket.getInputStream()) + " " + socket.getRemoteSocketAddress() + " " + socket.getLocalAddress().getHostAddress());
        }
        try (var socket = new Socket("10.77.0.20", 7002)) {
            var in = new BufferedReader(new InputStreamReader(socket.getInputStream())); System.out.println(in.readLine());
            socket.getOutputStream().write("helo\n".getBytes()); System.out.println(in.readLine());
        }
        try { new Socket("10.77.0.20", 7999); } catch (ConnectException e) { System.out.println(e.getMessage()); }
        try (var socket = new Socket()) { socket.connect(new InetSocketAddress("fd77::20", 7000), 5000); System.out.println(socket.getInetAddress()); }

        try (var selector = Selector.open(); var channel = SocketChannel.open()) {
            channel.configureBlocking(false); System.out.println(channel.connect(new InetSocketAddress("10.77.0.20", 7000)));
            channel.register(selector, SelectionKey.OP_CONNECT);
            var got = new StringBuilder();
            while (got.length() < 3) {
                selector.select(5000);
                for (var key : selector.selectedKeys()) {
                    if (key.isConnectable()) { System.out.println(channel.finishConnect()); channel.write(ByteBuffer.wrap("nio".getBytes())); key.interestOps(SelectionKey.OP_READ); }
                    else { var in = ByteBuffer.allocate(9); channel.read(in); got.append(new String(in.array(), 0, in.position())); }
                }
                selector.selectedKeys().clear();
            }
            System.out.println(got + " " + channel.getRemoteAddress());
        }
        try (var selector = Selector.open(); var channel = SocketChannel.open()) {
            channel.configureBlocking(false); channel.connect(new InetSocketAddress("10.77.0.20", 7999));
            channel.register(selector, SelectionKey.OP_CONNECT); selector.select(5000);
            channel.finishConnect();
        } catch (ConnectException e) { System.out.println("nio: " + e.getMessage()); }
        try (var channel = SocketChannel.open(new InetSocketAddress("10.77.0.20", 7000))) {
            channel.write(ByteBuffer.wrap("blocking".getBytes())); var in = ByteBuffer.allocate(8); channel.read(in); System.out.println(new String(in.array()));
        }
        try (var datagrams = new DatagramSocket()) {
            datagrams.setSoTimeout(5000); var out = "datagram".getBytes();
            datagrams.send(new DatagramPacket(out, out.length, InetAddress.getByName("10.77.0.20"), 7000));
            var in = new DatagramPacket(new byte[99], 99); datagrams.receive(in);
            System.out.println(new String(in.getData(), 0, in.getLength()) + " " + in.getSocketAddress());
        }
        var client = HttpClient.newHttpClient(); var asked = HttpRequest.newBuilder(URI.create("http://orders.staging.internal:8080/java")).build();
        for (int n = 0; n < 3; n++) { var answer = client.send(asked, HttpResponse.BodyHandlers.ofString()); System.out.print(answer.statusCode() + " " + answer.body()); }
        System.out.print(text(new URL("http://orders.staging.internal:8080/url").openStream()));
        var pool = Executors.newFixedThreadPool(20); var all = new ArrayList<Future<Boolean>>();
        for (int n = 0; n < 100; n++) all.add(pool.submit(() -> {
            try (var socket = new Socket("10.77.0.20", 7000)) { socket.getOutputStream().write('x'); return socket.getInputStream().read() == 'x'; }
        }));
        int good = 0; for (var one : all) if (one.get()) good++; System.out.println(good + " at once"); pool.shutdown();
        try (var own = new ServerSocket(0, 5, InetAddress.getLoopbackAddress()); var socket = new Socket(own.getInetAddress(), own.getLocalPort())) {
            System.out.println("to itself " + own.accept().getInetAddress().getHostAddress() + " " + socket.isConnected());
        }
    }
}
