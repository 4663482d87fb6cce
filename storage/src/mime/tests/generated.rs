//! Well-formed messages whose parts are known, because they were put together from them.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Tree {
    Leaf(String),
    Multipart(Vec<Tree>),
    Message(Box<Tree>),
}

struct Rendered {
    header: String,
    body: String,
}

impl Rendered {
    fn whole(&self) -> String {
        format!("{}{}", self.header, self.body)
    }
}

fn trees() -> impl Strategy<Value = Tree> {
    let leaf = "([a-z -]{0,8}\r\n){0,3}[a-z]{0,5}".prop_filter("no delimiter", |text| !text.contains("--")).prop_map(Tree::Leaf);
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Tree::Multipart),
            inner.prop_map(|tree| Tree::Message(Box::new(tree)))
        ]
    })
}

/// Every multipart has a boundary of its own: its path.
fn render(tree: &Tree, path: &str) -> Rendered {
    match tree {
        Tree::Leaf(body) => Rendered { header: "Content-Type: text/plain\r\n\r\n".to_owned(), body: body.clone() },
        Tree::Message(inner) => {
            Rendered { header: "Content-Type: message/rfc822\r\n\r\n".to_owned(), body: render(inner, &format!("{path}m")).whole() }
        }
        Tree::Multipart(children) => {
            let parts = children.iter().enumerate().map(|(n, child)| render(child, &format!("{path}.{n}")).whole());
            let body: String = parts.map(|part| format!("--b{path}\r\n{part}\r\n")).collect();
            Rendered { header: format!("Content-Type: multipart/mixed; boundary=\"b{path}\"\r\n\r\n"), body: format!("{body}--b{path}--") }
        }
    }
}

fn check(structure: &Structure<'_>, tree: &Tree, path: &str, numbers: &mut Vec<u32>, is_root: bool) {
    let expected = render(tree, path);
    let get = |part: &[u32], text| match structure.section(&Section { part: part.to_vec(), text }) {
        Some(Found::Range(range)) => Some(String::from_utf8(structure.raw()[range].to_vec()).unwrap()),
        _ => None,
    };
    if is_root {
        assert_eq!(get(numbers, SectionText::Header).unwrap(), expected.header);
        assert_eq!(get(numbers, SectionText::Text).unwrap(), expected.body);
        if !matches!(tree, Tree::Multipart(_)) {
            numbers.push(1);
            check(structure, tree, path, numbers, false);
            numbers.pop();
            return;
        }
    } else {
        assert_eq!(get(numbers, SectionText::Mime).unwrap(), expected.header);
        assert_eq!(get(numbers, SectionText::Whole).unwrap(), expected.body);
    }
    match tree {
        Tree::Leaf(_) => assert_eq!(get(&[numbers.as_slice(), &[1]].concat(), SectionText::Whole), None),
        Tree::Message(inner) => check(structure, inner, &format!("{path}m"), numbers, true),
        Tree::Multipart(children) => {
            for (n, child) in children.iter().enumerate() {
                numbers.push(u32::try_from(n).unwrap() + 1);
                check(structure, child, &format!("{path}.{n}"), numbers, false);
                numbers.pop();
            }
            let beyond = u32::try_from(children.len()).unwrap() + 1;
            assert_eq!(get(&[numbers.as_slice(), &[beyond]].concat(), SectionText::Whole), None);
        }
    }
}

proptest! {
    #[test]
    fn parts_are_found_exactly_where_they_were_put(tree in trees()) {
        let raw = render(&tree, "").whole();
        check(&Structure::parse(raw.as_bytes()), &tree, "", &mut Vec::new(), true);
    }
}
