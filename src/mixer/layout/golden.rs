//! Golden values: where each template puts what, by the contract's formulas.

use serde_json::{Value, json};

use super::*;
use crate::mixer::scene::{Doubt, MixRequest, Template};

/// Portrait and landscape in turn: the official sub's 2:3, and 16:9.
const SUBS: [Size; 5] = [
    size(320, 480),
    size(1280, 720),
    size(320, 480),
    size(1280, 720),
    size(320, 480),
];

pub(super) const fn size(width: u32, height: u32) -> Size {
    Size { width, height }
}

/// A main with `subs` subs, in a template.
pub(super) fn scene(template: Value, subs: usize) -> Scene {
    let inputs: Vec<_> = (0..=subs)
        .map(|n| json!({"stream": format!("s{n}"), "layer": n + 1}))
        .collect();
    let request = json!({"app": "live", "template": template, "inputs": inputs, "output": {"stream": "mixed"}});
    let request: MixRequest = serde_json::from_value(request).unwrap();
    Scene::new(&request).unwrap()
}

/// All present, the main of the canvas's size, the subs as above.
pub(super) fn known(canvas: Size, subs: usize) -> Known {
    let sizes = std::iter::once(canvas).chain(SUBS.into_iter().cycle().take(subs));
    Known {
        inputs: sizes
            .map(|size| Fact {
                size: Some(size),
                presence: Presence::Present,
            })
            .collect(),
        ..Known::default()
    }
}

pub(super) type Box4 = (u32, u32, u32, u32);

pub(super) fn boxes(layout: &Layout) -> Vec<Box4> {
    let views = layout.cells.iter().filter_map(|cell| cell.view.as_ref());
    views
        .map(|v| (v.rect.x, v.rect.y, v.rect.width, v.rect.height))
        .collect()
}

/// The contract's number, the canvas, and the boxes from layer 2 on.
type Golden = (u64, (u32, u32), &'static [Box4]);

#[rustfmt::skip]
const GOLDEN: [Golden; 48] = [
    // 360x640
    (10, (360, 640), &[(20, 20, 120, 180)]),
    (20, (360, 640), &[(220, 440, 120, 180)]),
    (30, (360, 640), &[(20, 440, 120, 180)]),
    (40, (360, 640), &[(220, 20, 120, 180)]),
    (50, (360, 640), &[(240, 400, 120, 180)]),
    (310, (360, 640), &[(20, 20, 120, 180), (220, 552, 120, 68)]),
    (390, (360, 640), &[(0, 184, 180, 270), (180, 268, 180, 102)]),
    (391, (360, 640), &[(80, 10, 180, 270), (80, 290, 180, 102)]),
    (410, (360, 640), &[(20, 20, 120, 180), (220, 552, 120, 68), (20, 440, 120, 180)]),
    (510, (360, 640), &[(20, 20, 120, 180), (220, 552, 120, 68), (220, 20, 120, 180), (20, 552, 120, 68)]),
    (590, (360, 640), &[(12, 20, 168, 252), (180, 20, 168, 94), (12, 368, 168, 252), (180, 526, 168, 94)]),
    (610, (360, 640), &[(20, 20, 120, 180), (220, 552, 120, 68), (220, 20, 120, 180), (120, 552, 120, 68), (20, 440, 120, 180)]),
    // 540x960
    (10, (540, 960), &[(20, 20, 180, 270)]),
    (20, (540, 960), &[(340, 670, 180, 270)]),
    (30, (540, 960), &[(20, 670, 180, 270)]),
    (40, (540, 960), &[(340, 20, 180, 270)]),
    (50, (540, 960), &[(244, 400, 120, 180)]),
    (310, (540, 960), &[(20, 20, 180, 270), (340, 838, 180, 102)]),
    (390, (540, 960), &[(0, 276, 270, 406), (270, 404, 270, 152)]),
    (391, (540, 960), &[(124, 10, 270, 406), (124, 426, 270, 152)]),
    (410, (540, 960), &[(20, 20, 180, 270), (340, 838, 180, 102), (20, 670, 180, 270)]),
    (510, (540, 960), &[(20, 20, 180, 270), (340, 838, 180, 102), (340, 20, 180, 270), (20, 838, 180, 102)]),
    (590, (540, 960), &[(18, 20, 252, 376), (270, 20, 252, 142), (18, 564, 252, 376), (270, 798, 252, 142)]),
    (610, (540, 960), &[(20, 20, 180, 270), (340, 838, 180, 102), (340, 20, 180, 270), (180, 838, 180, 102), (20, 670, 180, 270)]),
    // 720x1280
    (10, (720, 1280), &[(20, 20, 240, 360)]),
    (20, (720, 1280), &[(460, 900, 240, 360)]),
    (30, (720, 1280), &[(20, 900, 240, 360)]),
    (40, (720, 1280), &[(460, 20, 240, 360)]),
    (50, (720, 1280), &[(244, 400, 120, 180)]),
    (310, (720, 1280), &[(20, 20, 240, 360), (460, 1124, 240, 136)]),
    (390, (720, 1280), &[(0, 370, 360, 540), (360, 538, 360, 202)]),
    (391, (720, 1280), &[(170, 10, 360, 540), (170, 560, 360, 202)]),
    (410, (720, 1280), &[(20, 20, 240, 360), (460, 1124, 240, 136), (20, 900, 240, 360)]),
    (510, (720, 1280), &[(20, 20, 240, 360), (460, 1124, 240, 136), (460, 20, 240, 360), (20, 1124, 240, 136)]),
    (590, (720, 1280), &[(20, 20, 334, 502), (366, 20, 334, 188), (20, 758, 334, 502), (366, 1072, 334, 188)]),
    (610, (720, 1280), &[(20, 20, 240, 360), (460, 1124, 240, 136), (460, 20, 240, 360), (240, 1124, 240, 136), (20, 900, 240, 360)]),
    // 1280x720
    (10, (1280, 720), &[(20, 20, 160, 240)]),
    (20, (1280, 720), &[(1100, 460, 160, 240)]),
    (30, (1280, 720), &[(20, 460, 160, 240)]),
    (40, (1280, 720), &[(1100, 20, 160, 240)]),
    (50, (1280, 720), &[(244, 400, 120, 180)]),
    (310, (1280, 720), &[(20, 20, 160, 240), (834, 460, 426, 240)]),
    (390, (1280, 720), &[(20, 180, 240, 360), (640, 180, 640, 360)]),
    (391, (1280, 720), &[(512, 10, 234, 350), (318, 370, 622, 350)]),
    (410, (1280, 720), &[(20, 20, 160, 240), (834, 460, 426, 240), (20, 460, 160, 240)]),
    (510, (1280, 720), &[(20, 20, 160, 240), (834, 460, 426, 240), (1100, 20, 160, 240), (20, 460, 426, 240)]),
    (590, (1280, 720), &[(20, 20, 224, 334), (664, 20, 596, 334), (20, 366, 224, 334), (664, 366, 596, 334)]),
    (610, (1280, 720), &[(20, 20, 160, 240), (834, 460, 426, 240), (1100, 20, 160, 240), (426, 460, 426, 240), (20, 460, 160, 240)]),
];

#[test]
fn numbered_templates_stand_where_the_contract_puts_them() {
    for (number, (width, height), wanted) in GOLDEN {
        let canvas = size(width, height);
        let scene = scene(json!(number), wanted.len());
        let layout = resolve(&scene, canvas, &known(canvas, wanted.len()));
        let found = boxes(&layout);
        assert_eq!(found[0], (0, 0, width, height), "{number}");
        assert_eq!(found[1..], *wanted, "{number} on {width}x{height}");
        // Boxes hug their pictures: no bars.
        for cell in &layout.cells {
            let view = cell.view.as_ref().unwrap();
            assert_eq!((view.picture, view.source), (view.rect, None), "{number}");
        }
        assert_eq!(layout.remarks, [], "{number} on {width}x{height}");
    }
    let numbers = Template::all().filter_map(Template::number);
    for number in numbers {
        assert_eq!(GOLDEN.iter().filter(|g| g.0 == number).count(), 4);
    }
}

#[test]
fn three_subs_stand_where_the_official_clients_put_them() {
    for (canvas, wanted) in [
        (
            size(540, 960),
            [
                (380, 630, 160, 240),
                (380, 390, 160, 240),
                (380, 150, 160, 240),
            ],
        ),
        (
            size(720, 1280),
            [
                (560, 950, 160, 240),
                (560, 710, 160, 240),
                (560, 470, 160, 240),
            ],
        ),
        (
            size(360, 640),
            [
                (240, 400, 120, 180),
                (240, 220, 120, 180),
                (240, 40, 120, 180),
            ],
        ),
        (
            size(1280, 720),
            [
                (1160, 480, 120, 180),
                (1160, 300, 120, 180),
                (1160, 120, 120, 180),
            ],
        ),
        // 60 + 3 × 180 = 600 on 300: half of everything.
        (
            size(640, 300),
            [(580, 180, 60, 90), (580, 90, 60, 90), (580, 0, 60, 90)],
        ),
    ] {
        let layout = resolve(&scene(json!("linkmic"), 3), canvas, &known(canvas, 3));
        assert_eq!(boxes(&layout)[1..], wanted, "{canvas:?}");
    }
    let small = size(480, 640);
    let layout = resolve(&scene(json!("linkmic"), 1), small, &known(small, 1));
    assert_eq!(boxes(&layout)[1], (360, 400, 120, 180));
}

#[test]
fn a_grid_is_as_square_as_can_be_and_its_last_row_stands_in_the_middle() {
    let of = |count: usize, canvas: Size| {
        boxes(&resolve(
            &scene(json!("grid"), count - 1),
            canvas,
            &Known::default(),
        ))
    };
    assert_eq!(of(1, size(1280, 720)), [(0, 0, 1280, 720)]);
    assert_eq!(
        of(2, size(1280, 720)),
        [(0, 0, 640, 720), (640, 0, 640, 720)]
    );
    assert_eq!(
        of(2, size(720, 1280)),
        [(0, 0, 720, 640), (0, 640, 720, 640)]
    );
    assert_eq!(
        of(4, size(540, 960)),
        [
            (0, 0, 270, 480),
            (270, 0, 270, 480),
            (0, 480, 270, 480),
            (270, 480, 270, 480)
        ]
    );
    assert_eq!(
        of(3, size(360, 640)),
        [(0, 0, 180, 320), (180, 0, 180, 320), (90, 320, 180, 320)]
    );
    // Columns of 426.67: edges at 426 (or 428) and 854, each rounded by itself.
    assert_eq!(
        of(5, size(1280, 720)),
        [
            (0, 0, 426, 360),
            (426, 0, 428, 360),
            (854, 0, 426, 360),
            (214, 360, 426, 360),
            (640, 360, 426, 360)
        ]
    );
    assert_eq!(of(16, size(1280, 720))[15], (960, 540, 320, 180));
}

#[test]
fn side_by_side_is_one_row() {
    let of = |count: usize, canvas: Size| {
        boxes(&resolve(
            &scene(json!("side-by-side"), count - 1),
            canvas,
            &Known::default(),
        ))
    };
    assert_eq!(
        of(2, size(720, 640)),
        [(0, 0, 360, 640), (360, 0, 360, 640)]
    );
    assert_eq!(
        of(3, size(1280, 720)),
        [(0, 0, 426, 720), (426, 0, 428, 720), (854, 0, 426, 720)]
    );
    assert_eq!(
        of(2, size(360, 640)),
        [(0, 0, 180, 640), (180, 0, 180, 640)]
    );
}

#[test]
fn stacked_inputs_lie_at_the_corner_in_their_own_size() {
    let canvas = size(540, 960);
    let layout = resolve(&scene(json!("stacked"), 2), canvas, &known(canvas, 2));
    // 1280×720 does not fit: 540 / 1280 × 720 = 303.75.
    assert_eq!(
        boxes(&layout),
        [(0, 0, 540, 960), (0, 0, 320, 480), (0, 0, 540, 304)]
    );
    let remarks: Vec<_> = layout
        .remarks
        .iter()
        .map(|r| (r.input, r.field, r.kind))
        .collect();
    assert_eq!(remarks, [(2, "width", Doubt::OutsideCanvas)]);
}
