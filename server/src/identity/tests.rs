#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use super::*;

#[test]
fn a_saved_key_is_read_back_and_signs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server0.key");
    let identity = Identity::generate().unwrap();
    identity.save(&path, false).unwrap();
    let read = Identity::load(&path).unwrap();
    assert_eq!(read.public(), identity.public());
    let signature = read.sign(b"hello");
    assert!(identity.public().verifies(b"hello", &signature));
    assert!(!identity.public().verifies(b"hellp", &signature));
}

#[test]
fn an_existing_key_is_kept_unless_forced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    let (old, new) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    old.save(&path, false).unwrap();
    assert!(matches!(new.save(&path, false), Err(IdentityError::Exists { .. })));
    assert_eq!(Identity::load(&path).unwrap().public(), old.public());
    new.save(&path, true).unwrap();
    assert_eq!(Identity::load(&path).unwrap().public(), new.public());
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    Identity::generate().unwrap().save(&path, false).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = Identity::load(&path).unwrap_err().to_string();
    assert!(error.contains("chmod 600") && error.contains("0640"), "{error}");
}

#[test]
fn garbage_is_no_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k");
    for content in [&b"not a key"[..], &[0xff; 9000], b""] {
        let _ = std::fs::remove_file(&path);
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(&path).unwrap().write_all(content).unwrap();
        assert!(matches!(Identity::load(&path), Err(IdentityError::Malformed { .. })));
    }
}

#[test]
fn public_keys_are_sixty_four_digits() {
    let key = Identity::generate().unwrap().public();
    assert_eq!(key.to_string().parse::<PartyKey>().unwrap(), key);
    for wrong in ["", "00", &"0".repeat(64), &"g".repeat(64), &"é".repeat(32)] {
        assert!(wrong.parse::<PartyKey>().is_err(), "{wrong}");
    }
}

#[test]
fn debug_output_shows_no_secret() {
    let identity = Identity::generate().unwrap();
    let shown = format!("{identity:?}");
    let secret: String = identity.0.to_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert!(shown.contains("redacted") && !shown.contains(&secret));
}
