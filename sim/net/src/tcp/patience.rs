//! How long a connection without a user waits for the other side.

use std::time::Duration;

use smoltcp::socket::tcp::{Socket, State};

/// For a handshake or an end: about what Linux takes with its defaults (`tcp_synack_retries`, `tcp_fin_timeout`).
const SHORT: Duration = Duration::from_secs(60);
/// For data that nobody acknowledges: about what Linux takes (`tcp_retries2`).
const LONG: Duration = Duration::from_secs(15 * 60);

/// Watches a connection for progress. One that is established and owes nothing may be silent for ever.
#[derive(Default)]
pub(super) struct Patience {
    /// What the connection is waiting for, and until when.
    wait: Option<(State, usize, Duration)>,
}

impl Patience {
    /// Looks at the connection; true if it has waited for the same thing too long.
    pub(super) fn is_over(&mut self, now: Duration, socket: &Socket<'_>) -> bool {
        let (state, queue) = (socket.state(), socket.send_queue());
        let open = matches!(state, State::Established | State::CloseWait);
        if open && queue == 0 {
            self.wait = None;
            return false;
        }
        match self.wait {
            Some((of, left, until)) if (of, left) == (state, queue) => now >= until,
            _ => {
                self.wait = Some((state, queue, now + if open { LONG } else { SHORT }));
                false
            }
        }
    }

    /// When it is over if nothing happens.
    pub(super) fn until(&self) -> Option<Duration> {
        self.wait.map(|(_, _, until)| until)
    }
}
