//! Pictures that prove themselves: a colour, something that moves, and a frame number burnt into blocks.
//!
//! The number survives scaling to a third and a low bitrate, because a block is a tenth of the picture
//! wide; four blocks of known brightness and a checksum make sure that what is read was written.

/// Width and height in pixels; both even, as I420 wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl Size {
    pub const fn new(width: usize, height: usize) -> Self {
        Self { width, height }
    }

    /// Bytes of one I420 frame.
    pub const fn frame_bytes(self) -> usize {
        self.width * self.height * 3 / 2
    }

    /// The whole picture.
    pub const fn whole(self) -> Region {
        Region {
            x: 0,
            y: 0,
            width: self.width,
            height: self.height,
        }
    }
}

/// A rectangle of a picture, in pixels from its top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    pub x: usize,
    pub y: usize,
    pub width: usize,
    pub height: usize,
}

/// A colour as video has it: luma and two chroma values, limited range, BT.601.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Colour {
    pub y: u8,
    pub u: u8,
    pub v: u8,
}

impl Colour {
    pub const BLUE: Colour = Colour::rgb(20, 50, 230);
    pub const RED: Colour = Colour::rgb(220, 30, 30);
    pub const GREEN: Colour = Colour::rgb(20, 180, 40);
    pub const YELLOW: Colour = Colour::rgb(230, 210, 20);
    pub const BLACK: Colour = Colour::rgb(0, 0, 0);
    pub const WHITE: Colour = Colour::rgb(255, 255, 255);
    pub const GREY: Colour = Colour::rgb(128, 128, 128);

    /// What [`name`](Colour::name) knows.
    const NAMED: [(&'static str, Colour); 7] = [
        ("blue", Colour::BLUE),
        ("red", Colour::RED),
        ("green", Colour::GREEN),
        ("yellow", Colour::YELLOW),
        ("black", Colour::BLACK),
        ("white", Colour::WHITE),
        ("grey", Colour::GREY),
    ];

    /// The farthest that a colour may be from a named one and still bear its name: codecs and a change
    /// between BT.601 and BT.709 move saturated colours by up to 30, the named ones are 70 apart.
    const REACH: u32 = 34;

    /// From 8-bit red, green and blue.
    pub const fn rgb(r: i32, g: i32, b: i32) -> Self {
        Self {
            y: ((66 * r + 129 * g + 25 * b + 128) / 256 + 16) as u8,
            u: ((-38 * r - 74 * g + 112 * b + 128) / 256 + 128) as u8,
            v: ((112 * r - 94 * g - 18 * b + 128) / 256 + 128) as u8,
        }
    }

    fn distance(self, other: Colour) -> u32 {
        let square = |a: u8, b: u8| u32::from(a.abs_diff(b)).pow(2);
        (square(self.y, other.y) + square(self.u, other.u) + square(self.v, other.v)).isqrt()
    }

    /// The nearest named colour; `None` when none is near.
    pub fn name(self) -> Option<&'static str> {
        Self::NAMED
            .iter()
            .map(|(name, colour)| (self.distance(*colour), *name))
            .min()
            .filter(|(distance, _)| *distance <= Self::REACH)
            .map(|(_, name)| name)
    }
}

/// Bits of the burnt-in number; it begins again at 0 after [`COUNTER_MODULUS`] frames.
pub const COUNTER_BITS: u32 = 12;
/// The number of different burnt-in numbers: 204 s at 20 frames a second.
pub const COUNTER_MODULUS: u64 = 1 << COUNTER_BITS;

const COLUMNS: usize = 10;
const ROWS: usize = 2;
const CELLS: usize = COLUMNS * ROWS;
/// Brightness that a reading needs between black and white markers; less is no counter at all.
const MIN_CONTRAST: i32 = 80;

/// The picture of one publisher: draws frame after frame into the same buffer.
#[derive(Debug, Clone)]
pub struct Pattern {
    size: Size,
    blank: Vec<u8>,
    bar_luma: u8,
    frame: Vec<u8>,
}

impl Pattern {
    pub fn new(size: Size, colour: Colour) -> Self {
        let luma = size.width * size.height;
        let mut blank = vec![colour.y; size.frame_bytes()];
        blank[luma..luma * 5 / 4].fill(colour.u);
        blank[luma * 5 / 4..].fill(colour.v);
        Self {
            size,
            frame: blank.clone(),
            blank,
            bar_luma: if colour.y > 125 { 16 } else { 235 },
        }
    }

    /// Frame `number` as I420; the burnt-in number is its low [`COUNTER_BITS`] bits.
    pub fn draw(&mut self, number: u64) -> &[u8] {
        let Size { width, height } = self.size;
        self.frame.copy_from_slice(&self.blank);
        let bar_width = width / 12;
        let bar_x = (number as usize * (width / 40).max(1)) % (width - bar_width);
        for y in height * 62 / 100..height * 72 / 100 {
            self.frame[y * width + bar_x..][..bar_width].fill(self.bar_luma);
        }
        let whole = self.size.whole();
        for (index, bright) in cells((number % COUNTER_MODULUS) as u16)
            .into_iter()
            .enumerate()
        {
            let cell = cell(whole, index);
            for y in cell.y..cell.y + cell.height {
                self.frame[y * width + cell.x..][..cell.width].fill(if bright { 235 } else { 16 });
            }
        }
        &self.frame
    }
}

/// What a region of a picture shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The mean of a part of the region that nothing moves through.
    pub colour: Colour,
    /// The burnt-in number; `None` when there is none or it is damaged.
    pub counter: Option<u16>,
}

/// Reads `region` of an I420 `frame` of `size`, taking the region for a scaled [`Pattern`].
pub fn read(frame: &[u8], size: Size, region: Region) -> Reading {
    let luma = size.width * size.height;
    let quarter = Region {
        x: (region.x + region.width * 8 / 100) / 2,
        y: (region.y + region.height * 35 / 100) / 2,
        width: region.width * 42 / 200,
        height: region.height * 20 / 200,
    };
    let full = Region {
        x: quarter.x * 2,
        y: quarter.y * 2,
        width: quarter.width * 2,
        height: quarter.height * 2,
    };
    let colour = Colour {
        y: mean(&frame[..luma], size.width, full),
        u: mean(&frame[luma..luma * 5 / 4], size.width / 2, quarter),
        v: mean(&frame[luma * 5 / 4..], size.width / 2, quarter),
    };
    let mut levels = [0u8; CELLS];
    for (index, level) in levels.iter_mut().enumerate() {
        *level = mean(&frame[..luma], size.width, middle(cell(region, index)));
    }
    Reading {
        colour,
        counter: decode(&levels),
    }
}

/// The frame number behind a burnt-in `counter`: the newest not above `newest` that fits it.
pub fn unwrap(counter: u16, newest: u64) -> Option<u64> {
    newest.checked_sub(distance(counter, (newest % COUNTER_MODULUS) as u16))
}

/// Frames from burnt-in number `from` on to `to`, at most one round.
pub fn distance(from: u16, to: u16) -> u64 {
    (u64::from(to) + COUNTER_MODULUS - u64::from(from)) % COUNTER_MODULUS
}

/// Where block `index` stands: two rows of ten across the top.
fn cell(region: Region, index: usize) -> Region {
    let (column, row) = (index % COLUMNS, index / COLUMNS);
    let left = region.width * column / COLUMNS;
    let right = region.width * (column + 1) / COLUMNS;
    let height = (region.width / COLUMNS).min(region.height / 8);
    Region {
        x: region.x + left,
        y: region.y + row * height,
        width: right - left,
        height,
    }
}

/// The inner part of a block, away from what scaling and the codec smear over its edges.
fn middle(cell: Region) -> Region {
    Region {
        x: cell.x + cell.width * 3 / 10,
        y: cell.y + cell.height * 3 / 10,
        width: (cell.width * 4 / 10).max(1),
        height: (cell.height * 4 / 10).max(1),
    }
}

fn mean(plane: &[u8], stride: usize, region: Region) -> u8 {
    let mut sum = 0u64;
    let mut count = 0u64;
    for row in plane
        .chunks_exact(stride)
        .skip(region.y)
        .take(region.height)
    {
        let inside = row.iter().skip(region.x).take(region.width);
        for value in inside {
            sum += u64::from(*value);
            count += 1;
        }
    }
    sum.checked_div(count).unwrap_or(0) as u8
}

fn checksum(counter: u16) -> u16 {
    let nibble = |at: u16| (counter >> (4 * at)) & 15;
    (nibble(0) + 3 * nibble(1) + 5 * nibble(2) + 7) & 15
}

/// The blocks of `counter`, true for white: black, white, eight bits; white, black, eight bits.
fn cells(counter: u16) -> [bool; CELLS] {
    let word = counter << 4 | checksum(counter);
    std::array::from_fn(|index| match index {
        0 | 11 => false,
        1 | 10 => true,
        _ if index < COLUMNS => word >> (15 - (index - 2)) & 1 == 1,
        _ => word >> (7 - (index - COLUMNS - 2)) & 1 == 1,
    })
}

fn decode(levels: &[u8; CELLS]) -> Option<u16> {
    let level = |index: usize| i32::from(levels[index]);
    let black = level(0).max(level(11));
    let white = level(1).min(level(10));
    if white - black < MIN_CONTRAST {
        return None;
    }
    let mut word = 0u16;
    for index in (2..COLUMNS).chain(COLUMNS + 2..CELLS) {
        let place = (level(index) - black) * 100 / (white - black);
        // Neither black nor white is a misread, not a guess.
        let bit = match place {
            ..35 => 0,
            66.. => 1,
            _ => return None,
        };
        word = word << 1 | bit;
    }
    let counter = word >> 4;
    (checksum(counter) == word & 15).then_some(counter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: Size = Size::new(540, 960);
    const SUB: Size = Size::new(320, 480);

    /// Puts every third pixel of `frame` (the crudest scaling there is) at `region` of a grey canvas.
    fn third(frame: &[u8], from: Size, canvas: Size, at: (usize, usize)) -> (Vec<u8>, Region) {
        let mut out = Pattern::new(canvas, Colour::GREY).blank;
        let region = Region {
            x: at.0,
            y: at.1,
            width: from.width / 3,
            height: from.height / 3,
        };
        let luma = (from.width * from.height, canvas.width * canvas.height);
        for y in 0..region.height {
            for x in 0..region.width {
                out[(y + at.1) * canvas.width + x + at.0] = frame[y * 3 * from.width + x * 3];
            }
        }
        for (plane, value) in [(0, frame[luma.0]), (1, frame[luma.0 * 5 / 4])] {
            let base = luma.1 + plane * luma.1 / 4;
            for y in at.1 / 2..(at.1 + region.height) / 2 {
                out[base + y * canvas.width / 2 + at.0 / 2..][..region.width / 2].fill(value);
            }
        }
        (out, region)
    }

    #[test]
    fn every_number_reads_back_as_itself() {
        let mut pattern = Pattern::new(SUB, Colour::RED);
        for number in 0..COUNTER_MODULUS {
            let reading = read(pattern.draw(number), SUB, SUB.whole());
            assert_eq!(reading.counter, Some(number as u16));
            assert_eq!(reading.colour.name(), Some("red"), "{:?}", reading.colour);
        }
    }

    #[test]
    fn a_picture_scaled_to_a_third_still_reads() {
        let mut pattern = Pattern::new(SUB, Colour::GREEN);
        for number in [0, 1, 0b1010_1010_1010, 4095, 4096 + 77] {
            let (canvas, region) = third(pattern.draw(number), SUB, MAIN, (380, 630));
            let reading = read(&canvas, MAIN, region);
            assert_eq!(reading.counter, Some((number % 4096) as u16));
            assert_eq!(reading.colour.name(), Some("green"), "{:?}", reading.colour);
        }
    }

    #[test]
    fn a_landscape_picture_reads_as_well() {
        let size = Size::new(320, 180);
        let mut pattern = Pattern::new(size, Colour::YELLOW);
        let reading = read(pattern.draw(1234), size, size.whole());
        assert_eq!(
            (reading.counter, reading.colour.name()),
            (Some(1234), Some("yellow"))
        );
    }

    #[test]
    fn a_picture_without_blocks_has_no_number() {
        for colour in [Colour::BLACK, Colour::WHITE, Colour::BLUE] {
            let blank = Pattern::new(SUB, colour).blank;
            assert_eq!(read(&blank, SUB, SUB.whole()).counter, None);
        }
    }

    #[test]
    fn a_damaged_block_is_a_misread_and_never_another_number() {
        let mut pattern = Pattern::new(SUB, Colour::BLUE);
        for number in [0u64, 1365, 2730, 4095] {
            let frame = pattern.draw(number).to_vec();
            for index in 0..CELLS {
                let mut damaged = frame.clone();
                let cell = cell(SUB.whole(), index);
                for y in cell.y..cell.y + cell.height {
                    for luma in &mut damaged[y * SUB.width + cell.x..][..cell.width] {
                        *luma = 251 - *luma;
                    }
                }
                let counter = read(&damaged, SUB, SUB.whole()).counter;
                assert_eq!(counter, None, "block {index} of {number}");
            }
        }
    }

    #[test]
    fn consecutive_frames_differ_outside_the_blocks() {
        let mut pattern = Pattern::new(SUB, Colour::RED);
        let below = SUB.width * SUB.height / 2..SUB.width * SUB.height;
        let first = pattern.draw(7)[below.clone()].to_vec();
        assert_ne!(first, pattern.draw(8)[below]);
    }

    #[test]
    fn a_counter_belongs_to_the_newest_frame_that_it_fits() {
        assert_eq!(unwrap(5, 7), Some(5));
        assert_eq!(unwrap(7, 7), Some(7));
        // 4100 = 4096 + 4: counter 4095 was one wrap and five frames ago.
        assert_eq!(unwrap(4095, 4100), Some(4095));
        assert_eq!(unwrap(4, 4100), Some(4100));
        assert_eq!(unwrap(8, 7), None, "not fed yet");
    }

    #[test]
    fn named_colours_are_far_apart() {
        for (i, (_, a)) in Colour::NAMED.iter().enumerate() {
            for (_, b) in &Colour::NAMED[i + 1..] {
                assert!(a.distance(*b) > 2 * Colour::REACH, "{a:?} {b:?}");
            }
        }
    }
}
