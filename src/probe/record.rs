//! What people can look at afterwards: a picture and a recording, made by ffmpeg.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::picture::Size;
use super::process::Process;
use super::{Error, flv};

/// Encoding one picture takes a moment; on a machine under load a long one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Writes an I420 `frame` of `size` as PNG.
///
/// # Errors
/// [`Error::Ended`] with what ffmpeg said when it could not.
pub async fn png(path: &Path, frame: &[u8], size: Size) -> Result<(), Error> {
    let mut ffmpeg = ffmpeg(
        &format!(
            "-f rawvideo -pixel_format yuv420p -video_size {}x{} -i pipe:0 -frames:v 1 -update 1",
            size.width, size.height
        ),
        path,
    )?;
    if let Some(mut stdin) = ffmpeg.stdin() {
        // When ffmpeg does not take it, its own words below say why.
        let _ = stdin.write_all(frame).await;
    }
    ffmpeg.success(PATIENCE).await
}

/// Records `length` of what `url` plays, untouched, and returns the file's tags.
///
/// # Errors
/// [`Error::Ended`] with what ffmpeg said when it could not; [`Error::Deadline`] when too little came.
pub async fn recording(url: &str, length: Duration, path: &Path) -> Result<Vec<flv::Tag>, Error> {
    let arguments = format!("-i {url} -c copy -t {} -f flv", length.as_secs_f64());
    let mut ffmpeg = ffmpeg(&arguments, path)?;
    ffmpeg.success(length + PATIENCE).await?;
    let bytes =
        std::fs::read(path).map_err(|e| Error::io(format!("reading {}", path.display()), e))?;
    flv::tags(&bytes)
}

fn ffmpeg(arguments: &str, path: &Path) -> Result<Process, Error> {
    let mut all: Vec<String> = "-hide_banner -nostats -loglevel warning -y"
        .split_whitespace()
        .chain(arguments.split_whitespace())
        .map(str::to_owned)
        .collect();
    all.push(path.display().to_string());
    Process::spawn("ffmpeg", &all)
}
