//! Graphs of pipelines that failed, as files for Graphviz: what was linked to what, in which state, with which caps.
//!
//! Owns the folder that it is given and keeps only the newest few in it. Called when a decoder's or a program's pipeline is
//! given up, before it is stopped; touches the disk, so never from a thread that carries media.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use gstreamer as gst;
use gstreamer::prelude::*;

/// Files kept: enough for a night of failures of one kind with the first of another among them, and some 500 KB.
const KEPT: usize = 16;
/// Longest graph written: one of our pipelines has some 20 KB.
const MAX_BYTES: usize = 256 * 1024;
/// Longest reason that goes into a file.
const MAX_REASON_CHARS: usize = 300;

/// Two files of one millisecond have different names.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Writes the graph of `pipeline` as it is now into `folder`, which is made if need be, with `why` on its first line, and
/// deletes the oldest graphs there beyond the newest 16. The file written; names rise with time.
///
/// # Errors
/// What the disk says.
pub fn write(folder: &Path, pipeline: &gst::Pipeline, why: &str) -> io::Result<PathBuf> {
    let graph = pipeline.debug_to_dot_data(gst::DebugGraphDetails::all());
    if graph.len() > MAX_BYTES {
        return Err(io::Error::other(format!(
            "the graph has {} bytes, over {MAX_BYTES}",
            graph.len()
        )));
    }
    fs::create_dir_all(folder)?;
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed) % 10_000;
    let name = format!("{:014}-{number:04}", since.as_millis());
    let (path, part) = (
        folder.join(format!("{name}.dot")),
        folder.join(format!("{name}.part")),
    );
    let line: String = why
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_REASON_CHARS)
        .collect();
    // Whoever finds a graph finds all of it.
    let written = fs::write(&part, format!("// {line}\n{graph}"));
    if let Err(error) = written.and_then(|()| fs::rename(&part, &path)) {
        let _ = fs::remove_file(&part);
        return Err(error);
    }
    prune(folder)?;
    Ok(path)
}

/// Leaves the newest graphs. What has another name than ours stays.
fn prune(folder: &Path) -> io::Result<()> {
    let mut ours: Vec<_> = fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| is_ours(path))
        .collect();
    ours.sort_unstable();
    let surplus = ours.len().saturating_sub(KEPT);
    for old in &ours[..surplus] {
        match fs::remove_file(old) {
            // Another thread was here first.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn is_ours(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.and_then(|name| name.strip_suffix(".dot"))
        .is_some_and(|stem| {
            stem.len() == 19 && stem.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mixer::decode::launch;

    #[test]
    fn a_graph_says_why_and_only_the_newest_are_kept() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let graphs = folder.path().join("state/graphs");
        let pipeline = launch("fakesrc name=spring ! fakesink").unwrap();
        let mut written = Vec::new();
        for n in 0..KEPT + 3 {
            let why = format!("failure {n}\nof many");
            written.push(write(&graphs, &pipeline, &why).unwrap());
        }
        fs::write(graphs.join("notes.dot"), "an operator's own").unwrap();
        written.push(write(&graphs, &pipeline, "the last").unwrap());

        let mut left: Vec<_> = fs::read_dir(&graphs).unwrap().flatten().collect();
        left.sort_unstable_by_key(|entry| entry.path());
        let left: Vec<_> = left.iter().map(|entry| entry.path()).collect();
        let mut expected = written.split_off(written.len() - KEPT);
        expected.push(graphs.join("notes.dot"));
        assert_eq!(left, expected);
        let text = fs::read_to_string(&left[0]).unwrap();
        assert!(
            text.starts_with("// failure 4 of many\ndigraph pipeline"),
            "{text}"
        );
        assert!(text.contains("spring"), "{text}");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_and_no_more() {
        gst::init().unwrap();
        let pipeline = launch("fakesrc ! fakesink").unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(write(&file.path().join("graphs"), &pipeline, "why").is_err());
    }
}
