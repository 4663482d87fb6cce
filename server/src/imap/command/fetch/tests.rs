use super::*;
use crate::imap::wire::enabled::Awareness;

fn section(text: SectionText, peek: bool) -> FetchItem {
    FetchItem::Section { section: Section { part: vec![], text }, peek, partial: None, name: String::new() }
}
fn fields(names: &[&str]) -> FetchItem {
    section(SectionText::HeaderFields(names.iter().map(|name| (*name).to_owned()).collect()), true)
}

#[test]
fn header_fields_of_a_list_view_need_no_message_file() {
    let plan = Plan::new(vec![FetchItem::Flags, fields(&["From", "SUBJECT", "date"])], true, None, Enabled::NOTHING);
    assert!(plan.request.is_empty() && !plan.needs_rendered && !plan.sets_seen);
    let plan = Plan::new(vec![FetchItem::Envelope, fields(&["References"])], true, None, Enabled::NOTHING);
    assert!(plan.request.is_empty() && plan.needs_rendered && plan.fields.is_empty(), "one pass for both");
    let plan = Plan::new(vec![fields(&["From", "X-Other"]), fields(&["x-other", "FROM"])], true, None, Enabled::NOTHING);
    assert_eq!((plan.request.sections.len(), plan.fields.len()), (0, 1));
    let text = section(SectionText::Text, true);
    let plan = Plan::new(vec![fields(&["From"]), fields(&["From", "X-Other"]), text], true, None, Enabled::NOTHING);
    assert_eq!((plan.request.sections.len(), plan.fields.len()), (2, 1), "what is read anyway has the fields as well");
    let many: Vec<FetchItem> = (0..20).map(|number| fields(&[&format!("X-{number}")])).collect();
    let plan = Plan::new(many, true, None, Enabled::NOTHING);
    assert_eq!((plan.request.sections.len(), plan.fields.len()), (16, 4));
}

#[test]
fn only_reading_the_text_marks_a_message_as_seen() {
    assert!(sets_seen(&FetchItem::Rfc822) && sets_seen(&FetchItem::Rfc822Text) && !sets_seen(&FetchItem::Rfc822Header));
    assert!(sets_seen(&section(SectionText::Whole, false)) && !sets_seen(&section(SectionText::Whole, true)));
    assert!(!sets_seen(&FetchItem::Envelope) && !sets_seen(&FetchItem::Body));
}

#[test]
fn uid_and_modseq_are_added_where_the_command_implies_them() {
    let plan = Plan::new(vec![FetchItem::Flags], true, Some(7), Enabled { awareness: Awareness::CondStore, ..Enabled::NOTHING });
    assert_eq!(plan.items, [FetchItem::ModSeq, FetchItem::Uid, FetchItem::Flags]);
    let plan = Plan::new(vec![FetchItem::Uid], true, None, Enabled::NOTHING);
    assert_eq!(plan.items, [FetchItem::Uid]);
}
