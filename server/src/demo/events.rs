//! x
use super::layout::Layout;
/// x
pub async fn follow(layout: &Layout, print: bool) -> anyhow::Result<()> {
    let _ = (layout, print);
    todo!()
}
