//! The standard library: a client of everything, or a blocking server with threads.
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

fn client() -> std::io::Result<()> {
    println!("{} {}", std::env::var("GREETING").unwrap(), fs::read_to_string("/srv/config.txt")?.trim());
    println!("{} {:?}", fs::metadata("/srv/big")?.len(), fs::read("/srv/none").map_err(|e| e.kind()));
    let mut names: Vec<_> = fs::read_dir("/srv/folder")?.map(|e| e.unwrap().file_name()).collect();
    names.sort();
    println!("{:?} {:?}", names, fs::canonicalize("/srv/link")?);
    println!("{:?}", ("db.staging.internal", 7000).to_socket_addrs()?.next());
    println!("{}", ("nowhere.staging.internal", 1).to_socket_addrs().is_err());
    let mut stream = TcpStream::connect(("db.staging.internal", 7000))?;
    println!("{} {}", stream.peer_addr()?, stream.local_addr()?.ip());
    stream.write_all(b"rust")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut got = String::new();
    stream.read_to_string(&mut got)?;
    println!("{}", got);
    let mut timed = TcpStream::connect_timeout(&"[fd77::20]:7000".parse().unwrap(), Duration::from_secs(5))?;
    timed.write_all(b"x")?;
    println!("{:?} {}", timed.read(&mut [0; 9])?, timed.peer_addr()?);
    println!("{:?}", TcpStream::connect("10.77.0.20:7999").map_err(|e| e.kind()).is_ok());
    println!("{:?}", TcpStream::connect_timeout(&"10.77.0.20:7999".parse().unwrap(), Duration::from_secs(5)).map_err(|e| e.kind()).err());
    let datagrams = UdpSocket::bind("0.0.0.0:0")?;
    datagrams.set_read_timeout(Some(Duration::from_secs(5)))?;
    datagrams.send_to(b"datagram", "10.77.0.20:7000")?;
    let mut room = [0; 99];
    let (size, from) = datagrams.recv_from(&mut room)?;
    println!("{} {}", String::from_utf8_lossy(&room[..size]), from);
    let all: Vec<_> = (0..50)
        .map(|_| {
            std::thread::spawn(|| {
                let mut stream = TcpStream::connect("10.77.0.20:7000").unwrap();
                stream.write_all(b"t").unwrap();
                stream.read(&mut [0; 1]).unwrap()
            })
        })
        .collect();
    println!("{} at once", all.into_iter().map(|t| t.join().unwrap()).sum::<usize>());
    Ok(())
}

fn server() -> std::io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:8080")?;
    println!("listening");
    for stream in listener.incoming() {
        let mut stream = stream?;
        std::thread::spawn(move || {
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            let peer = stream.peer_addr().unwrap().ip();
            println!("{} {} {}", line.split(' ').nth(1).unwrap_or("-"), peer, peer);
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nlocal").unwrap();
        });
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    if std::env::args().nth(1).as_deref() == Some("server") { server() } else { client() }
}
