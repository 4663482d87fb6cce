//! ARCHITECTURE.md and README.md name what is there, and nothing that is not.

use std::collections::BTreeSet;

use tests::{Result, berth, ensure};

use super::{files, is_test, is_unit_test, read, rust_files};

#[test]
fn the_code_map_names_every_source_folder() -> Result<()> {
    let map = read("ARCHITECTURE.md")?;
    let folders: BTreeSet<String> = files()?
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .filter(|path| !is_unit_test(&path.display().to_string()))
        .filter_map(|path| Some(path.parent()?.display().to_string()))
        .collect();
    let missing: Vec<&String> = folders.iter().filter(|folder| !map.contains(&format!("`{folder}/`"))).collect();
    ensure!(missing.is_empty(), "ARCHITECTURE.md's code map lacks {missing:?}");
    Ok(())
}

#[test]
fn the_code_map_names_no_folder_that_is_gone() -> Result<()> {
    let map = read("ARCHITECTURE.md")?;
    let named = map.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("/`"));
    let gone: Vec<&str> = named.map(|(folder, _)| folder).filter(|folder| !berth::repository().join(folder).is_dir()).collect();
    ensure!(gone.is_empty(), "ARCHITECTURE.md's code map names {gone:?}");
    Ok(())
}

#[test]
fn every_test_that_a_document_names_exists() -> Result<()> {
    let sources: String = rust_files()?.into_iter().map(|(_, text)| text).collect();
    let mut missing = Vec::new();
    for document in ["ARCHITECTURE.md", "server/PROTOCOLS.md"] {
        for name in code_words(&read(document)?) {
            // Tests are sentences: nothing else in code spans has so many words.
            if name.matches('_').count() >= 3 && !is_test(&sources, name) {
                missing.push(format!("{document}: {name}"));
            }
        }
    }
    ensure!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

#[test]
fn every_test_that_a_module_names_as_its_guard_exists() -> Result<()> {
    let files = rust_files()?;
    let sources: String = files.iter().map(|(_, text)| text.as_str()).collect();
    let mut missing = Vec::new();
    for (path, text) in &files {
        let rules: String = text.lines().filter_map(|line| line.strip_prefix("//!")).collect::<Vec<_>>().join("\n");
        for name in code_words(&rules).into_iter().filter(|name| name.matches('_').count() >= 3) {
            if !is_test(&sources, name) {
                missing.push(format!("{path}: {name}"));
            }
        }
    }
    ensure!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

#[test]
fn links_to_files_lead_somewhere() -> Result<()> {
    let mut broken = Vec::new();
    for path in files()?.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")) {
        let folder = berth::repository().join(path).parent().map(ToOwned::to_owned).unwrap_or_default();
        for target in read(&path.display().to_string())?.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !folder.join(file).exists() {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    ensure!(broken.is_empty(), "{broken:#?}");
    Ok(())
}

#[test]
fn the_settings_in_documents_are_settings_of_the_example() -> Result<()> {
    let example = read("server/config.example.toml")?;
    let mut unknown = Vec::new();
    for document in ["README.md", "docs/install.md", "docs/operating.md"] {
        for block in read(document)?.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            for key in block.lines().filter_map(|line| Some(line.trim_start_matches('#').split_once(" = ")?.0.trim())) {
                if !example.contains(&format!("{key} = ")) {
                    unknown.push(format!("{document}: {key}"));
                }
            }
        }
    }
    ensure!(unknown.is_empty(), "{unknown:#?}");
    Ok(())
}

/// Single words in `code`.
fn code_words(text: &str) -> Vec<&str> {
    text.split('`')
        .skip(1)
        .step_by(2)
        .filter(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
        .collect()
}
