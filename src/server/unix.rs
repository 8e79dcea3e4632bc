//! The Unix domain socket: its file, and who may come by it.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::unistd::Uid;

use crate::config::{FileMode, UserList};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Why there is no such socket.
#[derive(Debug, thiserror::Error)]
pub enum UnixError {
    #[error("unix: another process listens on `{}`; expected a path of this gateway's own", .0.display())]
    Alive(PathBuf),
    #[error(
        "unix: `{}` is there and no socket; expected a path where nothing is, or the socket of a gateway \
         that is gone", .0.display()
    )]
    NoSocket(PathBuf),
    #[error(
        "unix: cannot listen on `{}`: {why}; expected the path of a file in a directory where the gateway \
         may make one, 107 bytes at most (--unix chooses another)", .path.display()
    )]
    Failed { path: PathBuf, why: io::Error },
}

/// Whose connections are taken.
pub(super) enum Users {
    /// The gateway's own, and root's.
    Own(u32),
    Listed(Vec<u32>),
}

impl Users {
    pub(super) fn new(list: &UserList) -> Self {
        match list {
            UserList::Own => Self::Own(Uid::effective().as_raw()),
            UserList::Listed(uids) => Self::Listed(uids.clone()),
        }
    }

    pub(super) fn contains(&self, uid: u32) -> bool {
        match self {
            Self::Own(own) => uid == *own || uid == 0,
            Self::Listed(uids) => uids.contains(&uid),
        }
    }
}

/// The socket's file. Removed when this is dropped, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    device_and_inode: (u64, u64),
}

impl SocketFile {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).ok() == Some(self.device_and_inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("the socket {} could not be removed: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// How long another gateway may take to start.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether it has.
const LOCK_INTERVAL: Duration = Duration::from_millis(20);

/// Listens at that path. The file that a dead gateway left there is replaced.
pub(super) fn open(path: &Path, mode: FileMode) -> Result<(UnixListener, SocketFile), UnixError> {
    let failed = |why| UnixError::Failed { path: path.to_owned(), why };
    // Of two gateways that start at once, the second finds the first one alive.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let lock = File::open(directory.unwrap_or(Path::new("."))).map_err(failed)?;
    lock_soon(&lock).map_err(failed)?;
    make_way(path)?;
    let opened = make(path, mode).map_err(failed)?;
    Ok(opened)
}

/// Anybody who may read the directory can lock it: that must not keep the gateway from starting for ever.
fn lock_soon(directory: &File) -> io::Result<()> {
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(LOCK_INTERVAL),
            Err(TryLockError::WouldBlock) => {
                let message = "its directory is locked by another process, for 5 s";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
        }
    }
}

/// Sees to it that nothing is at that path.
fn make_way(path: &Path) -> Result<(), UnixError> {
    let failed = |why| UnixError::Failed { path: path.to_owned(), why };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(UnixError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(UnixError::Alive(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// Nobody can connect before its mode is set: only then it listens.
fn make(path: &Path, mode: FileMode) -> io::Result<(UnixListener, SocketFile)> {
    let address = UnixAddr::new(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(socket.as_raw_fd(), &address)?;
    let file = SocketFile { path: path.to_owned(), device_and_inode: identity(path)? };
    fs::set_permissions(path, Permissions::from_mode(mode.0))?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok((socket.into(), file))
}
