//! A server on 127.0.0.1 that answers the requests of these tests like the Hub, correctly or not.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

/// The parts of a request that the server looks at.
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) head: String,
}

/// The server's reply: all bytes of an answer, and whether the connection then stays open without further data.
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) hang: bool,
}

pub(crate) fn reply(status: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Reply {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let (body, length) = (body.as_ref(), body.as_ref().len());
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n");
    let bytes = [head.as_bytes(), body].concat();
    Reply { bytes, hang: false }
}

/// Serves until the test ends; the threads and their sockets end with the process.
pub(crate) fn serve(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = Arc::clone(&answer);
            thread::spawn(move || handle(&stream.unwrap(), answer.as_ref()));
        }
    });
    endpoint
}

fn handle(mut stream: &TcpStream, answer: &(impl Fn(&Request) -> Reply + ?Sized)) {
    let Some(request) = receive(stream) else { return };
    let Reply { bytes, hang } = answer(&request);
    // The client may have closed the connection already.
    let _ = stream.write_all(&bytes);
    if hang {
        thread::sleep(Duration::from_secs(30));
    }
}

/// The request that a client sends; `None` if it sends nothing.
pub(crate) fn receive(stream: &TcpStream) -> Option<Request> {
    let lines = BufReader::new(stream).lines().map_while(|line| line.ok());
    let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
    let path = head.first()?.split(' ').nth(1)?;
    Some(Request { path: path.to_owned(), head: head.join("\n").to_lowercase() })
}
