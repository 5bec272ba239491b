//! A link from a picture of its code.

use std::path::Path;

use crate::problem::{Outcome, Problem, While};

/// Longest side of a picture, pixels.
const LONGEST_SIDE: u32 = 8_000;

/// The text of the one code in a picture.
pub fn read(file: &Path) -> Outcome<String> {
    let doing = format!("the picture {} cannot be read", file.display());
    let mut reader = image::ImageReader::open(file).during(&doing)?.with_guessed_format().during(&doing)?;
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    reader.limits(limits);
    let picture = reader.decode().during(&doing)?.to_luma8();
    let mut prepared = rqrr::PreparedImage::prepare(picture);
    match prepared.detect_grids().as_slice() {
        [code] => code.decode().map(|(_, text)| text).during(&doing),
        [] => {
            Err(Problem::said("there is no qr code in the picture; take it from nearer, all of it and sharp"))
        }
        _ => Err(Problem::said("there is more than one qr code in the picture; cut the others off")),
    }
}
