//! A peers file under an editor's hands.

use tokio::time::timeout;

use super::*;

const ONE: &str = "[[peer]]\nsubnet = \"172.27.0.0/16\"\nhost = \"172.16.199.27\"\n";
const OTHER: &str = "[[peer]]\nsubnet = \"172.28.0.0/16\"\nhost = \"172.16.199.28\"\n";

async fn next(updates: &mut mpsc::Receiver<Update>) -> Update {
    timeout(Duration::from_secs(3), updates.recv())
        .await
        .expect("an update within 3 s")
        .expect("a live watch")
}

fn subnets(update: Update) -> Vec<String> {
    match update {
        Update::Snapshot(peers) => peers.keys().map(ToString::to_string).collect(),
        other => panic!("a snapshot was expected: {other:?}"),
    }
}

fn reason(update: Update) -> String {
    match update {
        Update::Health(Health::Degraded { reason }) => reason,
        other => panic!("Degraded was expected: {other:?}"),
    }
}

fn follow(path: &Path) -> mpsc::Receiver<Update> {
    let (sender, updates) = mpsc::channel(8);
    let store = FileStore::new(path.to_owned());
    tokio::spawn(async move { store.watch(sender).await });
    updates
}

#[tokio::test]
async fn edits_are_applied_and_bad_ones_are_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.toml");
    std::fs::write(&path, ONE).unwrap();
    let mut updates = follow(&path);
    assert_eq!(subnets(next(&mut updates).await), ["172.27.0.0/16"]);
    assert_eq!(next(&mut updates).await, Update::Health(Health::Ok));

    std::fs::write(&path, format!("{ONE}{OTHER}")).unwrap();
    assert_eq!(subnets(next(&mut updates).await), ["172.27.0.0/16", "172.28.0.0/16"]);

    std::fs::write(&path, format!("{ONE}prot = 1\n")).unwrap();
    let text = reason(next(&mut updates).await);
    assert!(
        text.contains("peers.toml:4: unknown field `prot`") && text.contains("subnets in it: 2"),
        "{text}"
    );

    // As editors do: a new file renamed over the old one.
    std::fs::write(directory.path().join("new"), OTHER).unwrap();
    std::fs::rename(directory.path().join("new"), &path).unwrap();
    assert_eq!(subnets(next(&mut updates).await), ["172.28.0.0/16"]);
    assert_eq!(next(&mut updates).await, Update::Health(Health::Ok));

    std::fs::remove_file(&path).unwrap();
    let text = reason(next(&mut updates).await);
    assert!(text.contains("No such file") && text.contains("subnets in it: 1"), "{text}");
    std::fs::write(&path, OTHER).unwrap();
    assert_eq!(next(&mut updates).await, Update::Health(Health::Ok), "nothing has changed but the health");
}

#[tokio::test]
async fn a_change_behind_a_symlink_is_polled() {
    let directory = tempfile::tempdir().unwrap();
    let real = tempfile::tempdir().unwrap();
    let (path, target) = (directory.path().join("peers.toml"), real.path().join("peers.toml"));
    std::fs::write(&target, ONE).unwrap();
    std::os::unix::fs::symlink(&target, &path).unwrap();
    let mut updates = follow(&path);
    assert_eq!(subnets(next(&mut updates).await), ["172.27.0.0/16"]);
    assert_eq!(next(&mut updates).await, Update::Health(Health::Ok));
    std::fs::write(&target, format!("{ONE}{OTHER}")).unwrap();
    assert_eq!(subnets(next(&mut updates).await).len(), 2);
}

#[tokio::test]
async fn a_missing_file_says_what_to_do_and_may_come_later() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("peers.toml");
    let error = FileStore::new(path.clone()).list().await.unwrap_err().to_string();
    assert!(error.contains("peers.toml") && error.contains("--peers"), "{error}");
    let error = FileStore::new(directory.path().to_owned()).list().await.unwrap_err().to_string();
    assert!(error.contains("no regular file"), "{error}");
    let mut updates = follow(&path);
    assert!(reason(next(&mut updates).await).contains("No such file"));
    std::fs::write(&path, ONE).unwrap();
    assert_eq!(subnets(next(&mut updates).await), ["172.27.0.0/16"]);
    assert_eq!(next(&mut updates).await, Update::Health(Health::Ok));
}

#[tokio::test]
async fn the_watch_ends_with_its_receiver() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, updates) = mpsc::channel(8);
    let store = FileStore::new(directory.path().join("peers.toml"));
    let watch = tokio::spawn(async move { store.watch(sender).await });
    drop(updates);
    timeout(Duration::from_secs(1), watch).await.expect("an end within 1 s").unwrap();
}
