//! stub
pub(crate) fn build(_: &std::path::Path, _: &std::path::Path) -> Result<usize, String> {
    Ok(0)
}
