//! Where templates put what is given no box.
//!
//! | source | covered |
//! |---|---|
//! | contract, section 2.3 | the numbered templates; (w, h) is the input's own fitted size, (W, H) the canvas |
//! | contract, section 6 | the official clients' column |
//!
//! The contract calls its numbers approximate. Where they contradict themselves: in 390 and 590 a picture keeps its
//! 20 px from the edge only while it has the room, since it would lie under its neighbour otherwise; the pictures of 391
//! are at most (H − 20) / 2 high, since with H / 2 they would leave the canvas, and the lower one stands below the
//! taller of the two. The middle one of 610's lower row is left where the contract has it, up to 20 px over its
//! neighbours when they are landscape.

use super::Size;
use crate::mixer::scene::Template;

/// Which of the inputs with pictures one is, of those that take part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Fills the canvas.
    Background,
    /// The nth of `of`, counted from 0.
    Nth { n: usize, of: usize },
}

/// A template's word on one input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Stated {
    pub width: f64,
    pub height: f64,
    pub size: Sizing,
    pub x: Along,
    pub y: Along,
}

/// What the stated size means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sizing {
    /// The box itself; a picture of another aspect gets bars.
    Box,
    /// Bounds: the box hugs the picture, at the corner that the template names.
    Bounds,
    /// The picture's own size; the stated one while that is not known.
    Own,
}

/// A position along one side, by the box's own length on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Along {
    Start(f64),
    End(f64),
    Middle,
    /// In the middle of what is left besides so many pixels at the end.
    MiddleBefore(f64),
    /// As `Start`, but nearer to the edge where the box would reach beyond the middle.
    FirstHalf(f64),
    /// As `End`, likewise.
    SecondHalf(f64),
    /// That far below the tallest of the template's pictures.
    Below(f64),
}

use Along::{Below, End, FirstHalf, Middle, MiddleBefore, SecondHalf, Start};

impl Along {
    /// `length`: the box's own; `tallest`: of all of the template's boxes.
    pub fn position(self, length: f64, tallest: f64, side: u32) -> f64 {
        let side = f64::from(side);
        match self {
            Start(from) => from,
            End(margin) => side - margin - length,
            Middle => (side - length) / 2.0,
            MiddleBefore(margin) => (side - length - margin) / 2.0,
            FirstHalf(from) => from.min(side / 2.0 - length),
            SecondHalf(margin) => (side - margin - length).max(side / 2.0),
            Below(gap) => tallest + gap,
        }
        .max(0.0)
    }
}

/// The official linkmic column of subs, drawn for a canvas of at least 540×960: their size, and the gap
/// below the first (contract, section 6).
const LARGE: Column = Column {
    width: 160.0,
    height: 240.0,
    bottom: 90.0,
};
/// The same for smaller canvases.
const SMALL: Column = Column {
    width: 120.0,
    height: 180.0,
    bottom: 60.0,
};

#[derive(Debug, Clone, Copy)]
struct Column {
    width: f64,
    height: f64,
    bottom: f64,
}

/// As far as the contract's templates keep from the canvas's sides.
const MARGIN: f64 = 20.0;
const TOP_LEFT: (Along, Along) = (Start(MARGIN), Start(MARGIN));
const TOP_RIGHT: (Along, Along) = (End(MARGIN), Start(MARGIN));
const BOTTOM_LEFT: (Along, Along) = (Start(MARGIN), End(MARGIN));
const BOTTOM_RIGHT: (Along, Along) = (End(MARGIN), End(MARGIN));
const BOTTOM_MIDDLE: (Along, Along) = (Middle, End(MARGIN));

/// The corners of a numbered template, from layer 2 on.
fn corners(template: Template) -> &'static [(Along, Along)] {
    match template {
        Template::N10 => &[TOP_LEFT],
        Template::N20 => &[BOTTOM_RIGHT],
        Template::N30 => &[BOTTOM_LEFT],
        Template::N40 => &[TOP_RIGHT],
        Template::N50 => &[(Start(244.0), Start(400.0))],
        Template::N310 => &[TOP_LEFT, BOTTOM_RIGHT],
        Template::N390 => &[(FirstHalf(MARGIN), Middle), (End(0.0), Middle)],
        Template::N391 => &[
            (MiddleBefore(MARGIN), Start(10.0)),
            (MiddleBefore(MARGIN), Below(20.0)),
        ],
        Template::N410 => &[TOP_LEFT, BOTTOM_RIGHT, BOTTOM_LEFT],
        Template::N510 => &[TOP_LEFT, BOTTOM_RIGHT, TOP_RIGHT, BOTTOM_LEFT],
        Template::N590 => &[
            (FirstHalf(MARGIN), FirstHalf(MARGIN)),
            (SecondHalf(MARGIN), FirstHalf(MARGIN)),
            (FirstHalf(MARGIN), SecondHalf(MARGIN)),
            (SecondHalf(MARGIN), SecondHalf(MARGIN)),
        ],
        Template::N610 => &[
            TOP_LEFT,
            BOTTOM_RIGHT,
            TOP_RIGHT,
            BOTTOM_MIDDLE,
            BOTTOM_LEFT,
        ],
        Template::Linkmic | Template::Stacked | Template::Grid | Template::SideBySide => &[],
    }
}

/// Bounds of the pictures in a numbered template.
fn bounds(template: Template, canvas: Size) -> (f64, f64) {
    let (width, height) = (f64::from(canvas.width), f64::from(canvas.height));
    match template {
        // Width alone counts; while the picture is not known, that of the official sub, 2:3.
        Template::N50 => (120.0, height),
        Template::N390 => (width / 2.0, height / 2.0),
        Template::N391 => (width / 2.0, (height - 20.0) / 2.0),
        Template::N590 => (width * 20.0 / 43.0, height * 20.0 / 43.0),
        _ => (width / 3.0, height / 3.0),
    }
}

/// Does the lowest input take a cell like the others, when it is a stream?
pub(super) fn has_equal_cells(template: Template) -> bool {
    matches!(template, Template::Grid | Template::SideBySide)
}

/// Size of a box of which the picture is not known yet.
pub(super) fn unknown(template: Template, stated: &Stated) -> (f64, f64) {
    match template {
        Template::N50 => (120.0, 180.0),
        _ => (stated.width, stated.height),
    }
}

/// What the template says of an input.
pub(super) fn stated(template: Template, role: Role, canvas: Size) -> Stated {
    let whole = Stated {
        width: canvas.width.into(),
        height: canvas.height.into(),
        size: Sizing::Box,
        x: Start(0.0),
        y: Start(0.0),
    };
    let Role::Nth { n, of } = role else {
        return whole;
    };
    match template {
        Template::Linkmic => column(canvas, n, of),
        Template::Stacked => Stated {
            size: Sizing::Own,
            ..whole
        },
        Template::Grid => {
            let (columns, rows) = grid(canvas, of);
            // The last row may be shorter than the others: it stands in the middle.
            let row = n / columns;
            let in_row = columns.min(of - row * columns);
            let indent = (columns - in_row) as f64 / 2.0;
            cell(canvas, (n % columns) as f64 + indent, columns, row, rows)
        }
        Template::SideBySide => cell(canvas, n as f64, of.max(1), 0, 1),
        numbered => {
            let (width, height) = bounds(numbered, canvas);
            let corners = corners(numbered);
            // As many as the template has; a scene has no more.
            let (x, y) = corners.get(n).copied().unwrap_or(TOP_LEFT);
            Stated {
                width,
                height,
                size: Sizing::Bounds,
                x,
                y,
            }
        }
    }
}

/// The nth from below in the column for that canvas, which shrinks whole when `of` boxes would leave it.
fn column(canvas: Size, n: usize, of: usize) -> Stated {
    let (width, height) = (f64::from(canvas.width), f64::from(canvas.height));
    let base = if width >= 540.0 && height >= 960.0 {
        LARGE
    } else {
        SMALL
    };
    let scale = (height / (base.bottom + base.height * of as f64))
        .min(width / base.width)
        .min(1.0);
    Stated {
        width: base.width * scale,
        height: base.height * scale,
        size: Sizing::Box,
        x: End(0.0),
        y: End((base.bottom + base.height * n as f64) * scale),
    }
}

/// Columns and rows for so many cells: as square as can be, the odd cell along the canvas's longer side.
fn grid(canvas: Size, count: usize) -> (usize, usize) {
    let count = count.max(1);
    let long = (count as f64).sqrt().ceil() as usize;
    let short = count.div_ceil(long);
    if canvas.width >= canvas.height {
        (long, short)
    } else {
        (short, long)
    }
}

/// Cells share their edges, so neighbours meet without a gap although each edge is rounded to even.
fn cell(canvas: Size, column: f64, columns: usize, row: usize, rows: usize) -> Stated {
    let edge = |at: f64, of: usize, side: u32| {
        f64::from(super::even(at * f64::from(side) / of as f64).min(side))
    };
    let row = row as f64;
    let (left, right) = (
        edge(column, columns, canvas.width),
        edge(column + 1.0, columns, canvas.width),
    );
    let (top, bottom) = (
        edge(row, rows, canvas.height),
        edge(row + 1.0, rows, canvas.height),
    );
    Stated {
        width: right - left,
        height: bottom - top,
        size: Sizing::Box,
        x: Start(left),
        y: Start(top),
    }
}
