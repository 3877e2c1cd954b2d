use super::*;

async fn start(trial: &Trial, role: Role) -> Mesh {
    // The port of a party that has just stopped may still be closing.
    for _ in 0..100 {
        match Mesh::start(trial.cluster(), role, trial.me(role)).await {
            Ok(mesh) => return mesh,
            Err(ListenError::Busy { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the port stays busy")
}

async fn all_linked(meshes: &[(Role, &Mesh)]) {
    for (role, mesh) in meshes {
        for other in role.others() {
            mesh.links().wait(other, LONG).await.unwrap();
        }
    }
}

#[tokio::test]
async fn three_parties_find_each_other_whatever_the_order() {
    let trial = Trial::new();
    let producer = start(&trial, Role::CryptoProducer).await;
    let s0 = start(&trial, Role::Server0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = s0.links().link(Role::Server1).unwrap_err().to_string();
    assert!(error.contains("server1 at 127.0.0.1") && error.contains("nobody listens"), "{error}");
    assert!(s0.links().epoch().is_err());
    let mut s1 = start(&trial, Role::Server1).await;
    let all = [(Role::Server0, &s0), (Role::Server1, &s1), (Role::CryptoProducer, &producer)];
    all_linked(&all).await;
    let epochs = all.map(|(_, mesh)| mesh.links().epoch().unwrap());
    assert!(epochs[0] == epochs[1] && epochs[1] == epochs[2]);
    let seed = |mesh: &Mesh, to| *mesh.links().link(to).unwrap().pair_seed().as_bytes();
    assert_eq!(seed(&s0, Role::Server1), seed(&s1, Role::Server0));
    assert_ne!(seed(&s0, Role::Server1), seed(&s0, Role::CryptoProducer));

    let link = s0.links().link(Role::Server1).unwrap();
    let channel = link.open_channel(b"session 1".to_vec()).unwrap();
    channel.send(b"share".to_vec()).await.unwrap();
    let (peer, hello, mut taken) = soon(LONG, s1.accept()).await.unwrap();
    assert_eq!((peer, &hello[..]), (Role::Server0.into(), &b"session 1"[..]));
    assert_eq!(taken.recv().await.unwrap(), b"share");
}

#[tokio::test]
async fn a_restarted_party_is_found_again_in_a_new_epoch() {
    for restarted in Role::ALL {
        let trial = Trial::new();
        let [a, b] = restarted.others();
        let (x, y) = (start(&trial, a).await, start(&trial, b).await);
        let z = start(&trial, restarted).await;
        all_linked(&[(a, &x), (b, &y), (restarted, &z)]).await;
        let before = x.links().epoch().unwrap();
        let mut state = x.links().watch(restarted).unwrap();
        let link = x.links().link(restarted).unwrap();
        let mut channel = link.open_channel(vec![]).unwrap();
        drop(z);
        let error = soon(Duration::from_secs(2), channel.recv()).await;
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("{restarted} at 127.0.0.1:"))
                && error.contains("went away: it is shutting down"),
            "{error}"
        );
        soon(LONG, state.wait_for(|s| matches!(s, PeerState::Absent(_)))).await.unwrap();
        assert!(x.links().epoch().is_err());
        // The others are not disturbed.
        assert!(x.links().link(b).is_ok() && y.links().link(a).is_ok());
        let z = start(&trial, restarted).await;
        all_linked(&[(a, &x), (b, &y), (restarted, &z)]).await;
        let after = x.links().epoch().unwrap();
        assert_ne!(before, after);
        assert!(y.links().epoch().unwrap() == after && z.links().epoch().unwrap() == after);
    }
}

#[tokio::test]
async fn a_newer_link_takes_the_place_of_an_old_one() {
    let trial = Trial::new();
    let s1 = start(&trial, Role::Server1).await;
    let (cluster, me) = (trial.cluster(), trial.me(Role::Server0));
    let first = dial(&cluster, &me, Role::Server1).await.unwrap();
    s1.links().wait(Role::Server0, LONG).await.unwrap();
    let _second = dial(&cluster, &me, Role::Server1).await.unwrap();
    let error = soon(LONG, first.closed()).await.to_string();
    assert!(error.contains("a newer link"), "{error}");
    let link = s1.links().wait(Role::Server0, LONG).await.unwrap();
    assert!(link.death().is_none());
}

#[tokio::test]
async fn clients_and_deployers_reach_a_party_beside_its_peers() {
    let trial = Trial::new();
    let mut s1 = start(&trial, Role::Server1).await;
    let mut clients = s1.clients().unwrap();
    assert!(s1.clients().is_none());
    let _client = dial_client(&trial.cluster(), Role::Server1).await.unwrap();
    assert!(soon(LONG, clients.recv()).await.unwrap().is_secure());
    let me = Me::deployer(trial.deployer.clone()).unwrap();
    let link = dial(&trial.cluster(), &me, Role::Server1).await.unwrap();
    let _channel = link.open_channel(b"deploy".to_vec()).unwrap();
    let (peer, hello, _) = soon(LONG, s1.accept()).await.unwrap();
    assert_eq!(peer, Peer::Deployer(trial.deployer.public()));
    assert_eq!(hello, b"deploy");
}
