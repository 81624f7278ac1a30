//! Questions to name servers, over TCP: every name server has it (RFC 7766), and no answer is truncated.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::message::{Answer, Data, MessageError, TXT, request};

/// The flag by which a question asks for recursion.
pub(super) const RECURSION: u16 = 0x0100;

/// A name server, and how long one exchange with it may take.
#[derive(Clone, Copy)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) timeout: Duration,
}

/// Sends a message and receives the answer.
pub(super) async fn exchange(server: Server, message: &[u8]) -> Result<Vec<u8>, String> {
    let Server {
        address,
        timeout: time,
    } = server;
    let exchanged = timeout(time, async {
        let mut stream = TcpStream::connect(address).await?;
        let length = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        stream
            .write_all(&[&length.to_be_bytes(), message].concat())
            .await?;
        let length = usize::from(stream.read_u16().await?);
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    });
    match exchanged.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!(
            "the name server {address} cannot be asked over TCP: {error}"
        )),
        Err(_) => Err(format!(
            "the name server {address} did not answer over TCP within {time:?}"
        )),
    }
}

/// Asks a name server a question.
pub(super) async fn ask(
    server: Server,
    flags: u16,
    name: &str,
    kind: u16,
) -> Result<Answer, String> {
    let address = server.address;
    let of_server = |error: MessageError| format!("{name:?} at the name server {address}: {error}");
    let id = rand::random();
    let question = request(id, flags, name, kind).map_err(of_server)?;
    let answer = exchange(server, &question).await?;
    let answer = Answer::read(&answer).map_err(of_server)?;
    if answer.id != id {
        return Err(of_server(MessageError::OtherQuestion));
    }
    Ok(answer)
}

/// The values of the TXT records of a name that a name server has.
pub(super) async fn texts(server: Server, flags: u16, name: &str) -> Result<Vec<Vec<u8>>, String> {
    let answer = ask(server, flags, name, TXT).await?;
    // No such name, and no such record, are answers as well.
    if !matches!(answer.code, 0 | 3) {
        return Err(format!(
            "the name server {} {}",
            server.address,
            code_text(answer.code)
        ));
    }
    let texts = answer
        .records
        .into_iter()
        .filter_map(|record| match record.data {
            Data::Text(text) => Some(text),
            _ => None,
        });
    Ok(texts.collect())
}

/// What a response code means (RFC 1035, 4.1.1; RFC 2136, 2.2).
pub(super) fn code_text(code: u8) -> String {
    match code {
        1 | 4 => "does not understand the request".to_owned(),
        2 => "failed to process the request (SERVFAIL)".to_owned(),
        3 => "has no such name (NXDOMAIN)".to_owned(),
        5 => "refuses the request (REFUSED): does it allow this key, or this address, to do that?"
            .to_owned(),
        9 => "is not the primary server of the zone, or does not accept the signature (NOTAUTH)"
            .to_owned(),
        10 => "does not have the name in this zone (NOTZONE)".to_owned(),
        code => format!("answers with the error {code}"),
    }
}
