//! docs/testing.md names a test for each failure of the field; a name without a test would be a promise and no more.

use std::collections::HashSet;
use std::path::Path;

/// Names of all functions in the sources below `folder`.
fn functions(folder: &Path, all: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            functions(&path, all);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let names = text.split("fn ").skip(1).filter_map(|rest| {
                let (name, _) = rest.split_once('(')?;
                Some(name.trim().to_owned())
            });
            all.extend(names);
        }
    }
}

#[test]
fn lessons_name_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut known = HashSet::new();
    functions(&root.join("src"), &mut known);
    functions(&root.join("tests"), &mut known);
    let page = std::fs::read_to_string(root.join("docs/testing.md")).expect("the page");
    let (_, table) = page
        .split_once("| failure in the field |")
        .expect("the table");
    let (table, _) = table.split_once("\n\n").expect("its end");
    let mut rows = 0;
    for row in table.lines().skip(2) {
        let names: Vec<&str> = row.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "no test: {row}");
        for name in names {
            assert!(known.contains(name), "there is no test {name}");
        }
        rows += 1;
    }
    assert!(rows >= 15, "{rows} rows");
}
