//! What goes wrong: on the wires, with processes, and at the servers.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, seq::IndexedRandom};
use tokio::time::sleep;

use super::yard::Yard;
use crate::support::proxy::{Fault, Way};

/// So long a frozen process is frozen: past the lease of 5 s.
const FROZEN: std::ops::Range<u64> = 6000..9000;

fn within(rng: &mut StdRng, milliseconds: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.random_range(milliseconds))
}

/// Connections are cut, and new ones refused for a while; or everything comes late.
pub async fn of_wires(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    while Instant::now() < end {
        sleep(within(&mut rng, 3000..8000)).await;
        let (name, proxy) = yard.proxies.choose(&mut rng).unwrap();
        match rng.random_range(0..4) {
            0 => {
                yard.fault(&format!("{name} late"));
                let delay = within(&mut rng, 20..300);
                for way in [Way::ToServer, Way::ToClient] {
                    proxy.spoil(way, Fault::Delay(delay));
                }
                sleep(within(&mut rng, 500..3000)).await;
                for way in [Way::ToServer, Way::ToClient] {
                    proxy.spoil(way, Fault::None);
                }
            }
            1 => {
                yard.fault(&format!("{name} cut off"));
                proxy.cut_once();
            }
            _ => {
                yard.fault(&format!("{name} away"));
                proxy.cut();
                sleep(within(&mut rng, 200..4000)).await;
                proxy.reopen();
            }
        }
    }
}

/// Processes are killed, frozen, and asked to end.
pub async fn of_processes(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    while Instant::now() < end {
        sleep(within(&mut rng, 3000..8000)).await;
        let slot = yard.slots.choose(&mut rng).unwrap();
        let mut held = slot.process.lock().await;
        // One that ended by itself is started again by whoever watches.
        let Some(mut process) = held.take() else { continue };
        if process.status().is_some() {
            *held = Some(process);
            continue;
        }
        match rng.random_range(0..4) {
            0 => {
                yard.fault(&format!("{} frozen", slot.command));
                process.signal("STOP");
                sleep(within(&mut rng, FROZEN)).await;
                process.signal("CONT");
                *held = Some(process);
                continue;
            }
            1 => {
                yard.fault(&format!("{} drained", slot.command));
                let log = process.path().display().to_string();
                let status = process.end(Duration::from_secs(90)).await;
                if !status.success() {
                    yard.gone
                        .lock()
                        .unwrap()
                        .push(format!("drained, it ended with {status}: {log}"));
                }
            }
            _ => {
                yard.fault(&format!("{} killed", slot.command));
                process.kill();
                sleep(within(&mut rng, 0..2000)).await;
            }
        }
        *held = Some(yard.start(slot));
    }
}

/// Redis loses everything, and sessions of PostgreSQL are ended. Never longer than eight seconds apart.
pub async fn of_servers(yard: &Yard<'_>, mut rng: StdRng, end: Instant) {
    while Instant::now() < end {
        sleep(within(&mut rng, 4000..8000)).await;
        if rng.random_bool(0.5) {
            yard.fault("Redis flushed");
            yard.installation.redis.flush().await;
        } else {
            yard.fault("sessions ended");
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            yard.installation.database.number(sql).await;
        }
    }
}
