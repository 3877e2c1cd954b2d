//! Two or three parties in this process, over real loopback sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on has failed"
)]

mod channels;
mod faults;
mod keys;
mod mesh;
mod port;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::config::{Address, Cluster, SampleParty, sample};
use selkie::Role;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);

/// Three identities, a deployer, and the configuration that all of them share.
struct Trial {
    text: String,
    identities: [Identity; 3],
    deployer: Identity,
    frame_bytes: usize,
}

impl Trial {
    fn new() -> Self {
        let identities: [Identity; 3] = std::array::from_fn(|_| Identity::generate().unwrap());
        let deployer = Identity::generate().unwrap();
        let held: [std::net::TcpListener; 3] =
            std::array::from_fn(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let parties = std::array::from_fn(|i| SampleParty {
            address: Address::loopback(held[i].local_addr().unwrap().port()).to_string(),
            key: identities[i].public().to_string(),
        });
        let text = sample(&parties, &deployer.public().to_string());
        Self { text, identities, deployer, frame_bytes: MAX_FRAME_BYTES }
    }

    /// The same with one thing changed.
    fn with(mut self, from: &str, to: &str) -> Self {
        assert!(self.text.contains(from), "{from}");
        self.text = self.text.replacen(from, to, 1);
        self
    }

    /// The same with shorter frames.
    fn with_frames(self, frame_bytes: usize) -> Self {
        Self { frame_bytes, ..self }
    }

    fn cluster(&self) -> Arc<Cluster> {
        let mut cluster = Cluster::parse(&self.text, Path::new("cluster.toml")).unwrap();
        cluster.limits.frame_bytes = self.frame_bytes;
        Arc::new(cluster)
    }

    /// What somebody believes who pins another key for one party.
    fn believing(&self, role: Role, key: &Identity) -> Arc<Cluster> {
        let old = self.identities[role as usize].public().to_string();
        let text = self.text.replacen(&old, &key.public().to_string(), 1);
        Arc::new(Cluster::parse(&text, Path::new("cluster.toml")).unwrap())
    }

    fn me(&self, role: Role) -> Me {
        Me::new(role, self.identities[role as usize].clone()).unwrap()
    }

    async fn listen(&self, role: Role) -> Listener {
        Listener::bind(&self.cluster(), role, &self.me(role)).await.unwrap()
    }

    /// server0's and server1's ends of one link.
    async fn pair(&self) -> (Link, Link, Listener) {
        let mut listener = self.listen(Role::Server1).await;
        let (cluster, me) = (self.cluster(), self.me(Role::Server0));
        let (dialed, accepted) = tokio::join!(dial(&cluster, &me, Role::Server1), listener.accept());
        let Some(Accepted::Party(accepted)) = accepted else { panic!("{accepted:?}") };
        (dialed.unwrap(), accepted, listener)
    }
}

/// One channel's two ends.
async fn channel(from: &Link, to: &Link) -> (Channel, Channel) {
    let ours = from.open_channel(b"hello".to_vec()).unwrap();
    let (hello, theirs) = to.accept().await.unwrap();
    assert_eq!(hello, b"hello");
    (ours, theirs)
}

/// The future's result; a failure if it takes too long.
async fn soon<T>(limit: Duration, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, what).await.expect("this takes too long")
}
