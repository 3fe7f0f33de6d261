//! How like its source a picture still is: structural similarity of luma, in windows of 8×8.
//!
//! Judged where the main lies bare, with nothing of a sub near: there every mixer has the same pictures to encode, none
//! of them scaled, so that what differs is what the encoders made of them. Each picture is held against the source's with the
//! same number burnt in, as a decoder gives it.

use linkmic::probe::process::Process;
use linkmic::probe::{Error, Region, Size};
use tokio::io::AsyncReadExt;
use tokio::process::ChildStdout;

/// Side of a window; windows lie side by side.
const SIDE: usize = 8;
/// What keeps the quotient from 0/0: (0.01 × 255)² and (0.03 × 255)².
const C1: f64 = 6.5025;
const C2: f64 = 58.5225;

/// The source's pictures, round after round.
pub struct Source {
    _ffmpeg: Process,
    pictures: ChildStdout,
    frame: Vec<u8>,
    /// Number of the picture in `frame`; `None` before the first.
    number: Option<u64>,
    /// Pictures in a round.
    round: u64,
    size: Size,
    /// Windows that are judged.
    windows: Vec<usize>,
}

impl Source {
    /// The pictures of `file`, of which there are `round`; nothing in `apart` is judged.
    pub fn new(file: &str, size: Size, round: u64, apart: &[Region]) -> Result<Self, Error> {
        let line = format!(
            "-loglevel error -stream_loop -1 -i {file} -map 0:v -fps_mode passthrough -pix_fmt yuv420p -f rawvideo pipe:1"
        );
        let mut ffmpeg = Process::spawn("ffmpeg", &line.split(' ').collect::<Vec<_>>())?;
        drop(ffmpeg.stdin());
        let pictures = ffmpeg.stdout();
        let pictures = pictures.ok_or_else(|| Error::Wrong("no pictures can be read".into()))?;
        // Encoders' blocks of 16 reach over a sub's edge.
        let bare = |x: usize, y: usize| {
            apart.iter().all(|region| {
                x + SIDE + 16 <= region.x
                    || y + SIDE + 16 <= region.y
                    || x >= region.x + region.width + 16
                    || y >= region.y + region.height + 16
            })
        };
        let rows = (0..size.height / SIDE).map(|y| y * SIDE);
        let windows = rows.flat_map(|y| {
            let columns = (0..size.width / SIDE).map(|x| x * SIDE);
            columns.map(move |x| (x, y))
        });
        let windows = windows.filter(|&(x, y)| bare(x, y));
        Ok(Self {
            _ffmpeg: ffmpeg,
            pictures,
            frame: vec![0; size.frame_bytes()],
            number: None,
            round,
            size,
            windows: windows.map(|(x, y)| y * size.width + x).collect(),
        })
    }

    /// How like the source's picture with that number `picture` is: 1 is the same. Numbers of one call after the other rise,
    /// round after round.
    pub async fn compare(&mut self, picture: &[u8], number: u16) -> Result<f64, Error> {
        while self
            .number
            .is_none_or(|at| at % self.round != u64::from(number) % self.round)
        {
            let read = self.pictures.read_exact(&mut self.frame).await;
            read.map_err(|e| Error::io("the source's pictures", e))?;
            self.number = Some(self.number.map_or(0, |at| at + 1));
        }
        let sum: f64 = self
            .windows
            .iter()
            .map(|&at| similarity(&picture[at..], &self.frame[at..], self.size.width))
            .sum();
        Ok(sum / self.windows.len() as f64)
    }
}

/// Structural similarity of two windows that begin at the beginning of `a` and `b` (Wang et al. 2004, with equal weights).
fn similarity(a: &[u8], b: &[u8], stride: usize) -> f64 {
    let (mut sum, mut squares, mut products) = ([0u32; 2], [0u32; 2], 0u32);
    for (a, b) in a.chunks(stride).zip(b.chunks(stride)).take(SIDE) {
        for (&a, &b) in a.iter().zip(b).take(SIDE) {
            let (a, b) = (u32::from(a), u32::from(b));
            sum = [sum[0] + a, sum[1] + b];
            squares = [squares[0] + a * a, squares[1] + b * b];
            products += a * b;
        }
    }
    let count = (SIDE * SIDE) as f64;
    let mean = sum.map(|sum| f64::from(sum) / count);
    let variance = [0, 1].map(|n| f64::from(squares[n]) / count - mean[n] * mean[n]);
    let covariance = f64::from(products) / count - mean[0] * mean[1];
    (2.0 * mean[0] * mean[1] + C1) * (2.0 * covariance + C2)
        / ((mean[0] * mean[0] + mean[1] * mean[1] + C1) * (variance[0] + variance[1] + C2))
}
