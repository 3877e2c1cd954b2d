//! The floor of every round: a small frame's way over a link of the same kind, between threads that share nothing else.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use selkie::Role;
use tokio::time::timeout;

use super::statistics::median;
use super::trial::Setting;
use crate::config::{Address, Cluster, SampleParty, sample};
use crate::exit::Failure;
use crate::identity::Identity;
use crate::init::free_ports;
use crate::link::{Accepted, Listener, Me, dial};

/// Bytes of a small frame.
const FRAME: usize = 64;
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(60);

/// The median time in milliseconds that a frame of 64 bytes takes from one end of a link to the other: half a round trip, with
/// nothing computed at the far end.
///
/// # Errors
/// No port is free, or the two ends do not find each other.
pub(super) async fn hop_ms(setting: &Setting) -> Result<f64, Failure> {
    let (cluster, [near, far]) = two_parties(setting)?;
    let (cluster, count) = (Arc::new(cluster), if setting.rtt_ms > 0.0 { 20 } else { 2000 });
    let (ready, listening) = tokio::sync::oneshot::channel();
    let at_far = cluster.clone();
    // The far end has threads of its own, as another process would.
    let echo = std::thread::spawn(move || -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut listener = Listener::bind(&at_far, Role::Server1, &far).await?;
            let _ = ready.send(());
            let echo = async {
                let Some(Accepted::Party(link)) = listener.accept().await else { return };
                let Ok((_, mut channel)) = link.accept().await else { return };
                while let Ok(frame) = channel.recv().await {
                    if channel.send(frame).await.is_err() {
                        return;
                    }
                }
            };
            // That the near end has failed is told there.
            let _ = timeout(LIMIT, echo).await;
            Ok(())
        })
    });
    let measure = async {
        // The far end has failed, and says so below.
        let Ok(()) = listening.await else { return Ok(Vec::new()) };
        let link = dial(&cluster, &near, Role::Server1).await?;
        let mut channel = link.open_channel(Vec::new())?;
        let mut times = Vec::with_capacity(count);
        for round in 0..count + count / 10 {
            let start = Instant::now();
            channel.send(vec![0; FRAME]).await?;
            channel.recv().await?;
            if round >= count / 10 {
                times.push(start.elapsed().as_secs_f64() * 1e3 / 2.0);
            }
        }
        Ok::<_, Failure>(times)
    };
    let times = timeout(LIMIT, measure).await.map_err(|_| Failure::other("a link on loopback took a minute"))??;
    let joined = tokio::task::spawn_blocking(move || echo.join()).await;
    joined.map_err(Failure::other)?.map_err(|_| Failure::other("a bug here: the far end stopped"))??;
    Ok(median(&times))
}

fn two_parties(setting: &Setting) -> Result<(Cluster, [Me; 2]), Failure> {
    let ports = free_ports()?;
    let identities = [Identity::generate()?, Identity::generate()?, Identity::generate()?];
    let party = |(identity, port): (&Identity, u16)| SampleParty {
        address: Address::loopback(port).to_string(),
        key: identity.public().to_string(),
    };
    let [zero, one, producer] = &identities;
    let [p0, p1, p2] = ports;
    let parties = [(zero, p0), (one, p1), (producer, p2)].map(party);
    let mut text = sample(&parties, &Identity::generate()?.public().to_string());
    if setting.rtt_ms > 0.0 || setting.bandwidth.is_some() {
        text.push_str(&format!("\n[emulation]\nrtt_ms = {:?}\n", setting.rtt_ms));
        if let Some(bandwidth) = &setting.bandwidth {
            text.push_str(&format!("bandwidth = {bandwidth:?}\n"));
        }
    }
    let cluster = Cluster::parse(&text, Path::new("cluster.toml"))?;
    let [zero, one, _] = identities;
    Ok((cluster, [Me::new(Role::Server0, zero)?, Me::new(Role::Server1, one)?]))
}
