//! Something that is no BGP daemon: it takes connections and octets, and says nothing. The suite must fail against it.

use crate::net::PORT;
use crate::roles::DUT;
use anyhow::Result;
use std::io::Read;
use std::net::TcpListener;

/// Connections that it holds at once; more are closed.
const CONNECTIONS_MAX: usize = 64;

pub(crate) fn run() -> Result<()> {
    let listener = TcpListener::bind((DUT, PORT))?;
    let mut held = Vec::new();
    for stream in listener.incoming() {
        let mut stream = stream?;
        if held.len() < CONNECTIONS_MAX {
            held.push(std::thread::spawn(move || {
                let mut octets = [0; 4096];
                while stream.read(&mut octets).is_ok_and(|n| n > 0) {}
            }));
        }
        held.retain(|thread| !thread.is_finished());
    }
    Ok(())
}
