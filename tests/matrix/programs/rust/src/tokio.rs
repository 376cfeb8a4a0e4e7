//! tokio: the same over epoll, edge-triggered, with threads that steal work.
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{lookup_host, TcpListener, TcpStream, UdpSocket};

type Outcome = Result<(), Box<dyn std::error::Error>>;

async fn client() -> Outcome {
    println!("{}", tokio::fs::read_to_string("/srv/config.txt").await?.trim());
    println!("{:?}", lookup_host("db.staging.internal:7000").await?.next());
    let mut stream = TcpStream::connect("db.staging.internal:7000").await?;
    println!("{} {}", stream.peer_addr()?, stream.local_addr()?.ip());
    stream.write_all(b"tokio").await?;
    stream.shutdown().await?;
    let mut got = String::new();
    stream.read_to_string(&mut got).await?;
    println!("{}", got);
    println!("{:?}", TcpStream::connect("10.77.0.20:7999").await.map_err(|e| e.kind()).err());
    let mut greeter = BufReader::new(TcpStream::connect("10.77.0.20:7002").await?);
    let mut line = String::new();
    greeter.read_line(&mut line).await?;
    println!("{}", line.trim());
    let datagrams = UdpSocket::bind("0.0.0.0:0").await?;
    datagrams.connect("10.77.0.20:7000").await?;
    datagrams.send(b"datagram").await?;
    let mut room = [0; 99];
    let size = datagrams.recv(&mut room).await?;
    println!("{}", String::from_utf8_lossy(&room[..size]));
    let all: Vec<_> = (0..100)
        .map(|_| {
            tokio::spawn(async {
                let mut stream = TcpStream::connect("10.77.0.20:7000").await.unwrap();
                stream.write_all(b"t").await.unwrap();
                stream.read(&mut [0; 1]).await.unwrap()
            })
        })
        .collect();
    let mut good = 0;
    for one in all {
        good += one.await?;
    }
    println!("{} at once", good);
    Ok(())
}

async fn server() -> Outcome {
    let listener = TcpListener::bind("[::]:8080").await?;
    println!("listening");
    loop {
        let (stream, peer) = listener.accept().await?;
        tokio::spawn(async move {
            let mut stream = BufReader::new(stream);
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) > 0 {
                let also = stream.get_ref().peer_addr().unwrap().ip();
                println!("{} {} {}", line.split(' ').nth(1).unwrap_or("-"), plain(peer.ip()), plain(also));
                let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nlocal").await;
            }
        });
    }
}

fn plain(ip: std::net::IpAddr) -> String {
    ip.to_string().trim_start_matches("::ffff:").to_string()
}

fn main() -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let server_asked = std::env::args().nth(1).as_deref() == Some("server");
    runtime.block_on(async { if server_asked { server().await } else { client().await } })
}
