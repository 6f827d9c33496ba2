//! What the service manager is told: ready, alive, reloading, stopping (sd_notify(3)).

use std::{
    env,
    ffi::OsString,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::{Duration, Instant},
};

/// The service manager, if there is one that listens.
#[derive(Debug, Default)]
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    next: Option<Instant>,
}

impl ServiceManager {
    /// Takes the address from the environment.
    pub(super) fn from_environment() -> ServiceManager {
        ServiceManager::new(env::var_os("NOTIFY_SOCKET"), env::var("WATCHDOG_USEC").ok())
    }

    fn new(socket: Option<OsString>, watchdog: Option<String>) -> ServiceManager {
        let address = socket.and_then(|name| {
            let bytes = name.as_bytes();
            match bytes.strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name).ok(),
                None => SocketAddr::from_pathname(&name).ok(),
            }
        });
        let watchdog = watchdog
            .and_then(|text| text.parse().ok())
            .filter(|usec| *usec > 0)
            .map(|usec: u64| Duration::from_micros(usec) / 3);
        ServiceManager {
            socket: address.and_then(|address| Some((UnixDatagram::unbound().ok()?, address))),
            watchdog,
            next: None,
        }
    }

    /// Says that the agent observes.
    pub(super) fn ready(&self) {
        self.say("READY=1\nSTATUS=observing\n");
    }

    /// Says that the configuration is read anew.
    pub(super) fn reloading(&self) {
        let usec = crate::time::mono_ns() / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={usec}\n"));
    }

    /// Says that the agent stops.
    pub(super) fn stopping(&self) {
        self.say("STOPPING=1\n");
    }

    /// Says that the agent is alive, three times as often as is asked for.
    pub(super) fn alive(&mut self) {
        let Some(every) = self.watchdog else { return };
        let now = Instant::now();
        if self.next.is_none_or(|next| now >= next) {
            self.next = Some(now + every);
            self.say("WATCHDOG=1\n");
        }
    }

    fn say(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            // Whoever does not listen misses it; the watchdog is the manager's own business.
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_told() {
        let path = env::temp_dir().join(format!("observer-notify-{}", std::process::id()));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_mins(1)))
            .unwrap();
        let next = || {
            let mut text = [0; 256];
            let length = socket.recv(&mut text).unwrap();
            String::from_utf8_lossy(&text[..length]).into_owned()
        };
        let watchdog = Some("3000000".to_owned());
        let mut manager = ServiceManager::new(Some(path.clone().into()), watchdog);
        manager.ready();
        assert!(next().starts_with("READY=1\n"));
        manager.alive();
        assert_eq!(next(), "WATCHDOG=1\n");
        // Not each time that it could.
        manager.alive();
        manager.reloading();
        assert!(next().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        manager.stopping();
        assert_eq!(next(), "STOPPING=1\n");
        std::fs::remove_file(path).unwrap();
        // Nobody listens any more, or never did.
        manager.ready();
        ServiceManager::new(None, None).alive();
    }
}
