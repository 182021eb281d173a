//! The only program of the images that the container tests run, built static by `rustc` when they need it.
//!
//! `/pod` waits for ever, as a sandbox does; `/pod serve PORT` answers HTTP as well.

use std::io::{Read, Write};
use std::net::TcpListener;

fn main() {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some("serve") {
        let port: u16 = words.next().and_then(|p| p.parse().ok()).expect("serve PORT");
        let listener = TcpListener::bind(("0.0.0.0", port)).expect("a free port");
        for stream in listener.incoming().flatten() {
            answer(stream);
        }
    }
    loop {
        std::thread::park();
    }
}

/// Whoever hangs up early gets nothing.
fn answer(mut stream: std::net::TcpStream) {
    let mut request = [0; 1024];
    let _ = stream.read(&mut request);
    let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nfrom a pod");
}
