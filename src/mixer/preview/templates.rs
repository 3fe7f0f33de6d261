//! The pictures in docs/templates are what the templates draw.
//!
//! `LINKMIC_DRAW_TEMPLATES=1 cargo test --lib templates` draws them anew.

use std::path::Path;

use serde_json::{Value, json};

use super::super::scene::Template;
use super::tests::{Image, preview};
use super::*;

/// Where the variable is set, the files are written instead of compared.
const REDRAW: &str = "LINKMIC_DRAW_TEMPLATES";
/// Other releases of fonts and scalers draw letters and edges a little different; a box in another place is far more.
const TOLERANCE: f64 = 1.5;
/// A page of them should load at once.
const MAX_BYTES: usize = 5 * 1024;

/// Name of the file, template, number of inputs.
const PICTURES: [(&str, &str, usize); 16] = [
    ("linkmic", "\"linkmic\"", 4),
    ("grid", "\"grid\"", 4),
    ("side-by-side", "\"side-by-side\"", 2),
    ("stacked", "\"stacked\"", 2),
    ("10", "10", 2),
    ("20", "20", 2),
    ("30", "30", 2),
    ("40", "40", 2),
    ("50", "50", 2),
    ("310", "310", 3),
    ("390", "390", 3),
    ("391", "391", 3),
    ("410", "410", 4),
    ("510", "510", 5),
    ("590", "590", 5),
    ("610", "610", 6),
];

#[test]
fn every_template_has_a_picture() {
    for template in Template::all() {
        let text = serde_json::to_string(&template).unwrap();
        assert!(
            PICTURES.iter().any(|(_, known, _)| *known == text),
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_pictures_for_users_are_what_the_templates_draw() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/templates");
    let page = folder.with_file_name("mixing.md");
    let page = std::fs::read_to_string(page).unwrap();
    for (name, template, count) in PICTURES {
        let inputs =
            (0..count).map(|n| json!({"stream": char::from(b'A' + n as u8), "layer": n + 1}));
        let template: Value = serde_json::from_str(template).unwrap();
        let body = json!({"app": "live", "template": template, "inputs": inputs.collect::<Vec<_>>(),
            "output": {"stream": "A", "width": 540, "height": 960}});
        let wish = Wish {
            width: Some(180),
            ..Wish::default()
        };
        let (drawn, image) = preview(body, wish);
        let path = folder.join(format!("{name}.png"));
        if std::env::var_os(REDRAW).is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &drawn.png).unwrap();
        }
        let file = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let distance = image.distance(&Image::read(&file));
        assert!(
            distance <= TOLERANCE,
            "{name}.png is {distance:.1} off; draw it anew with {REDRAW}=1"
        );
        assert!(
            file.len() <= MAX_BYTES,
            "{name}.png has {} bytes",
            file.len()
        );
        assert!(
            page.contains(&format!("(templates/{name}.png)")),
            "{name}.png is not on the page"
        );
    }
}
