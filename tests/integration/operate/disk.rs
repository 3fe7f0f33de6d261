//! A small file system of its own, which can be filled, and which can break. Only root may mount one. Where that cannot be, it
//! is said where nobody captures it; with `LINKMIC_NETWORK` set it fails, as for networks.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use linkmic::probe::process::output;
use tempfile::TempDir;

use crate::needs;

const PATIENCE: Duration = Duration::from_secs(20);

/// Unmounted when it is dropped.
pub struct Disk {
    at: PathBuf,
    image: PathBuf,
    /// Holds both.
    _folder: TempDir,
}

impl Disk {
    /// In memory, of two megabytes, for the test `what`; `None` where it cannot be.
    pub async fn in_memory(what: &str) -> Option<Self> {
        let disk = Self::place();
        let at = disk.at.display().to_string();
        disk.mounted(
            what,
            &["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", &at],
        )
        .await
    }

    /// An ext4 of 16 megabytes, for the test `what`; `None` where it cannot be.
    pub async fn of_ext4(what: &str) -> Option<Self> {
        let disk = Self::place();
        let image = std::fs::File::create(&disk.image).expect("an image");
        image.set_len(16 << 20).expect("a size");
        let name = disk.image.display().to_string();
        let made = output("mkfs.ext4", &["-q", &name], PATIENCE).await;
        made.expect("e2fsprogs makes a file system");
        disk.mounted_again(what).await
    }

    fn place() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path().join("disk");
        std::fs::create_dir(&at).expect("a folder");
        Self {
            at,
            image: folder.path().join("image"),
            _folder: folder,
        }
    }

    async fn mounted_again(self, what: &str) -> Option<Self> {
        let (image, at) = (
            self.image.display().to_string(),
            self.at.display().to_string(),
        );
        self.mounted(what, &["-o", "loop", &image, &at]).await
    }

    async fn mounted(self, what: &str, arguments: &[&str]) -> Option<Self> {
        let mounted = output("mount", arguments, PATIENCE).await;
        needs::given(
            mounted.map(|_| self),
            needs::ROOT,
            what,
            "nothing can be mounted here",
        )
    }

    /// The folder that it is mounted at.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// The words that start a server which keeps its state here.
    pub fn state(&self) -> [String; 2] {
        [
            "env".into(),
            format!("LINKMIC__STATE__DIR={}", self.at.display()),
        ]
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.filler()).expect("a file");
        for piece in [64 << 10, 512, 1] {
            let piece = vec![0x5a; piece];
            while file.write_all(&piece).is_ok() {}
        }
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    /// Does what the kernel does when an ext4 finds itself damaged: nothing can be written any more, by whoever has it open
    /// neither.
    pub async fn break_down(&self) {
        let at = self.at.display().to_string();
        let broken = output("mount", &["-o", "remount,abort", &at], PATIENCE).await;
        broken.expect("it breaks");
    }

    /// What an operator does about that: checks a copy of the file system, and mounts that instead. The broken one itself may
    /// still be mounted elsewhere, in a mount namespace that began meanwhile, and would be given back as it is.
    pub async fn mend(mut self, what: &str) -> Self {
        let at = self.at.display().to_string();
        output("umount", &[&at], PATIENCE)
            .await
            .expect("nobody uses it");
        let copy = self.image.with_extension("copy");
        std::fs::copy(&self.image, &copy).expect("room for a copy");
        self.image = copy;
        let image = self.image.display().to_string();
        // 1: mistakes were corrected.
        let check = format!("e2fsck -fy {image} >&2 || test $? = 1");
        output("sh", &["-c", &check], PATIENCE)
            .await
            .expect("it can be mended");
        self.mounted_again(what)
            .await
            .expect("it could be mounted before")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server that was killed a moment ago may have it open still.
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.at)
            .status();
    }
}
