use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::protocol::name::{Epoch, Name, ShardId};
use crate::state::shards::{LeaseRecord, NoticeRecord, PermitRecord, PoolRecord, Shard, ShardRecord};

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn shard(shard_count: u32, id: u32) -> Shard {
    Shard { shard_count, shard_id: ShardId(id) }
}

/// What a step of the pool that leases an id changes.
fn lease(shard: Shard, epoch: u64) -> Vec<Change> {
    let holder = Name::new(&format!("shard-{}", shard.shard_id)).unwrap();
    let epoch = Epoch(epoch);
    let lease = LeaseRecord { holder, epoch, since_ms: 1, accepted_ms: 2, state: None, reports: false };
    let permit = PermitRecord { shard, epoch, granted_ms: 2, next_ms: 7, used: false };
    vec![
        Change::Epoch { shard_id: shard.shard_id, epoch },
        Change::Permit { key: shard.shard_id.0 % 4, record: permit },
        Change::Shard { shard, record: ShardRecord { lease: Some(lease), ..ShardRecord::default() } },
    ]
}

fn pool(shard_count: u32) -> Change {
    let (retired, notice) = (BTreeMap::new(), NoticeRecord::default());
    let lost = BTreeMap::new();
    Change::Pool(PoolRecord { shard_count, reshard: None, frozen: None, retired, lost, notice })
}

/// Some hundreds of entries, some of them deleted again, one transaction for each step.
fn fill(store: &mut Store) -> Snapshot {
    let mut steps = vec![vec![pool(96)]];
    steps.extend((0..96).map(|id| lease(shard(96, id), 1)));
    steps.extend((0..9).map(|id| lease(shard(9, id), 2)));
    steps.push(vec![Change::ForgetPermits, Change::ForgetGeneration { shard_count: 9 }, pool(96)]);
    steps.extend((0..10).map(|id| lease(shard(96, id), 3)));
    let mut expected = Snapshot::default();
    for changes in &steps {
        store.apply(changes).unwrap();
        for change in changes {
            expected.apply(change);
        }
    }
    expected
}

fn open_error(directory: &Path) -> String {
    let error = Store::open(directory).and_then(|mut store| store.snapshot()).expect_err("it was opened");
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains(&shown(directory)), "{text}");
    text
}

#[test]
fn what_was_applied_is_found_by_whoever_opens_it_next() {
    let scratch = scratch();
    let directory = scratch.path().join("state").join("gateway");
    let mut store = Store::open(&directory).unwrap();
    assert_eq!(store.snapshot().unwrap(), Snapshot::default());
    let expected = fill(&mut store);
    assert_eq!(store.snapshot().unwrap(), expected);
    drop(store);
    assert_eq!(Store::open(&directory).unwrap().snapshot().unwrap(), expected);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&directory), mode(directory.parent().unwrap())), (0o700, 0o700));
}

#[test]
fn what_a_killed_process_left_is_found() {
    let (living, left) = (scratch(), scratch());
    let mut store = Store::open(living.path()).unwrap();
    let expected = fill(&mut store);
    // As it is on the disk while nobody has closed it.
    fs::copy(store.path(), left.path().join(FILE_NAME)).unwrap();
    // One that was killed as it made its store leaves this.
    fs::write(left.path().join(UNFINISHED_NAME), "half").unwrap();
    assert_eq!(Store::open(left.path()).unwrap().snapshot().unwrap(), expected);
    fs::remove_file(left.path().join(FILE_NAME)).unwrap();
    assert_eq!(Store::open(left.path()).unwrap().snapshot().unwrap(), Snapshot::default());
}

#[test]
fn a_directory_has_one_gateway() {
    let scratch = scratch();
    let store = Store::open(scratch.path()).unwrap();
    let error = open_error(scratch.path());
    assert!(error.contains(&format!("used by another gateway (process {})", std::process::id())), "{error}");
    drop(store);
    Store::open(scratch.path()).unwrap();
}

#[test]
fn a_store_is_opened_anew_after_a_write_that_failed() {
    let scratch = scratch();
    let mut store = Store::open(scratch.path()).unwrap();
    let mut expected = fill(&mut store);
    let (path, aside) = (store.path(), scratch.path().join("aside"));
    // As after a failed write.
    store.database = None;
    fs::rename(&path, &aside).unwrap();
    let changes = lease(shard(96, 50), 4);
    let error = store.apply(&changes).unwrap_err().to_string();
    assert!(error.contains("cannot keep the shard pool"), "{error}");
    fs::rename(&aside, &path).unwrap();
    store.apply(&changes).unwrap();
    for change in &changes {
        expected.apply(change);
    }
    assert_eq!(store.snapshot().unwrap(), expected);
}

#[test]
fn a_directory_that_cannot_be_had_is_named() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open_error(&file.join("gateway"));
    assert!(error.contains("cannot keep the shard pool") && error.contains("--data-dir"), "{error}");
    assert!(open_error(Path::new("/proc/gateway")).contains("cannot keep the shard pool"));
}

#[test]
fn a_store_of_a_newer_gateway_is_left_alone() {
    let scratch = scratch();
    let mut store = Store::open(scratch.path()).unwrap();
    fill(&mut store);
    let transaction = store.database().unwrap().begin_write().unwrap();
    transaction.open_table(ABOUT).unwrap().insert(FORMAT_KEY, 2).unwrap();
    transaction.commit().unwrap();
    drop(store);
    let error = open_error(scratch.path());
    assert!(error.contains("has format 2, and this gateway reads 1"), "{error}");
}

#[test]
fn an_entry_that_is_damaged_is_told() {
    let scratch = scratch();
    let mut store = Store::open(scratch.path()).unwrap();
    let transaction = store.database().unwrap().begin_write().unwrap();
    transaction.open_table(ENTRIES).unwrap().insert("epoch/0", "-1").unwrap();
    transaction.commit().unwrap();
    drop(store);
    let error = open_error(scratch.path());
    assert!(error.contains("is damaged: the stored entry `epoch/0`"), "{error}");
}

/// Whatever happened to the file, it is opened as it was last, or not at all.
#[test]
fn a_damaged_file_never_passes_for_an_older_or_an_empty_store() {
    let made = scratch();
    let mut store = Store::open(made.path()).unwrap();
    let expected = fill(&mut store);
    let path = store.path();
    let killed = fs::read(&path).unwrap();
    drop(store);
    let closed = fs::read(&path).unwrap();
    let mut refused = 0;
    for whole in [killed, closed] {
        for damage in damages(&whole) {
            let scratch = scratch();
            fs::write(scratch.path().join(FILE_NAME), &damage).unwrap();
            match Store::open(scratch.path()).and_then(|mut store| store.snapshot()) {
                Ok(snapshot) => assert!(snapshot == expected, "another state than the last was read"),
                Err(StoreError::Damaged { .. }) => refused += 1,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 60, "only {refused} damages were found");
}

/// Copies with bytes that flipped, pages that were never written, and an end that is missing.
fn damages(whole: &[u8]) -> Vec<Vec<u8>> {
    let mut dice = fastrand::Rng::with_seed(7);
    let mut damages = vec![Vec::new(), b"no store at all".to_vec(), vec![0; whole.len()]];
    // The header is small, and the likeliest to decide.
    for range in [0..512, 0..whole.len()] {
        damages.extend((0..60).map(|_| {
            let mut damage = whole.to_vec();
            damage[dice.usize(range.clone())] ^= 1 << dice.u8(..8);
            damage
        }));
    }
    damages.extend((0..whole.len()).step_by(3 * 4096).map(|page| {
        let mut damage = whole.to_vec();
        damage[page..].iter_mut().take(4096).for_each(|byte| *byte = 0);
        damage
    }));
    damages.extend((0..20).map(|_| whole[..dice.usize(..whole.len())].to_vec()));
    damages
}

#[test]
fn each_directory_that_is_made_is_made_durable_in_the_one_above_it() {
    let scratch = tempfile::tempdir().unwrap();
    let top = scratch.path();
    let (a, ab) = (top.join("a"), top.join("a/b"));
    let synced = |directory: &Path| {
        let mut synced = Vec::new();
        make_directory(directory, |it| {
            synced.push(it.to_owned());
            Ok(())
        })
        .unwrap();
        synced
    };
    assert_eq!(synced(&ab.join("c")), [top.to_owned(), a.clone(), ab.clone()]);
    for made in [&a, &ab, &ab.join("c")] {
        assert_eq!(fs::metadata(made).unwrap().permissions().mode() & 0o777, 0o700, "{}", made.display());
    }
    assert_eq!(synced(&ab), Vec::<PathBuf>::new(), "it is there");
}
