//! What sockets are connected to, as the kernel lists them for a process's network (`/proc/PID/net`).

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::event::SocketRef;

/// Bytes read of one list: some 200 000 sockets.
const MAX_LIST: u64 = 32 << 20;
/// State of a socket that waits for connections.
const LISTENS: &str = "0A";

/// The number in `socket:[123]`, the name that the kernel gives to a socket's descriptor.
pub fn inode(file: &str) -> Option<u64> {
    let number = file.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// Finds sockets by their inodes. Those of other kinds than TCP, UDP and Unix are not found, nor those of another
/// network than the process's.
pub fn find(pid: u32, wanted: &BTreeSet<u64>) -> HashMap<u64, SocketRef> {
    let mut found = HashMap::new();
    for protocol in ["tcp", "tcp6", "unix", "udp", "udp6"] {
        if found.len() == wanted.len() {
            break;
        }
        let Ok(list) = File::open(format!("/proc/{pid}/net/{protocol}")) else {
            continue;
        };
        let mut list = BufReader::new(list.take(MAX_LIST));
        let mut line = Vec::new();
        while let Ok(1..) = list.read_until(b'\n', &mut line) {
            let text = String::from_utf8_lossy(&line);
            let socket = match protocol {
                "unix" => unix(&text),
                _ => inet(protocol, &text),
            };
            if let Some((inode, socket)) = socket.filter(|(inode, _)| wanted.contains(inode)) {
                found.insert(inode, socket);
            }
            line.clear();
        }
    }
    found
}

/// `0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12345 …`
fn inet(protocol: &str, line: &str) -> Option<(u64, SocketRef)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let local = address(fields.next()?)?;
    let peer = address(fields.next()?)?;
    let state = fields.next()?;
    let inode = fields.nth(5)?.parse().ok()?;
    let tcp = protocol.starts_with("tcp");
    let connected = !peer.ip().is_unspecified() || peer.port() != 0;
    Some((
        inode,
        SocketRef {
            protocol: protocol.trim_end_matches('6').into(),
            local: Some(local.to_string().into()),
            peer: connected.then(|| peer.to_string().into()),
            listening: tcp && state == LISTENS,
        },
    ))
}

/// The words of an address are in the machine's order, the port is a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match address.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i * 8)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// `0000000000000000: 00000002 00000000 00010000 0001 01 12345 /run/socket`
fn unix(line: &str) -> Option<(u64, SocketRef)> {
    let mut fields = line.trim_end_matches('\n').splitn(8, ' ');
    let flags = fields.nth(3)?;
    // The inode is filled up with blanks.
    let rest = line.split_ascii_whitespace().skip(6).collect::<Vec<_>>();
    let inode = rest.first()?.parse().ok()?;
    let path = rest.get(1..).filter(|path| !path.is_empty());
    Some((
        inode,
        SocketRef {
            protocol: "unix".into(),
            local: path.map(|path| path.join(" ").into()),
            peer: None,
            // `__SO_ACCEPTCON`
            listening: flags == "00010000",
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::{TcpListener, TcpStream},
        os::{
            fd::AsRawFd,
            unix::{fs::MetadataExt as _, net::UnixListener},
        },
    };

    fn inode_of(socket: &impl AsRawFd) -> u64 {
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        let name = std::fs::read_link(&path).unwrap();
        let number = inode(name.to_str().unwrap()).unwrap();
        assert_eq!(number, std::fs::metadata(&path).unwrap().ino());
        number
    }

    #[test]
    fn sockets_have_their_ends() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            // Machines without IPv6 exist.
            let Ok(listener) = TcpListener::bind(host) else {
                continue;
            };
            let here = listener.local_addr().unwrap();
            let client = TcpStream::connect(here).unwrap();
            let (server, _) = listener.accept().unwrap();
            let inodes = [inode_of(&listener), inode_of(&client), inode_of(&server)];
            let found = find(std::process::id(), &inodes.into());
            let text = |addr: SocketAddr| -> Option<Box<str>> { Some(addr.to_string().into()) };
            let listening = &found[&inodes[0]];
            assert!(listening.listening && listening.peer.is_none());
            assert_eq!(listening.local, text(here));
            let there = client.local_addr().unwrap();
            assert_eq!(found[&inodes[1]].local, text(there));
            assert_eq!(found[&inodes[1]].peer, text(here));
            assert_eq!(found[&inodes[2]].peer, text(there));
            assert!(!found[&inodes[2]].listening);
        }
    }

    #[test]
    fn unix_sockets_have_their_path() {
        let path = std::env::temp_dir().join(format!("observer {}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let inode = inode_of(&listener);
        let found = find(std::process::id(), &BTreeSet::from([inode]));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found[&inode].local.as_deref(), path.to_str());
        assert!(found[&inode].listening);
    }

    #[test]
    fn lines_may_be_anything() {
        let line =
            "0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 12 1";
        assert_eq!(inet("tcp", line).unwrap().0, 12);
        for end in 0..line.len() {
            let _ = (inet("tcp", &line[..end]), unix(&line[..end]));
        }
        for address in ["", ":", "0:0", "0100007G:1", "é00000:1", "0100007F:10000"] {
            assert_eq!(super::address(address), None, "{address}");
        }
        assert_eq!(inode("socket:[12]"), Some(12));
        assert_eq!(inode("pipe:[12]"), None);
    }
}
