//! Reads a QR code off a terminal's screen, with a decoder that shares no code with the encoder.

use std::num::NonZeroU16;

use image::{GrayImage, Luma};

/// Pixels of one module, and half of a terminal cell.
const MODULE: u32 = 4;
/// The area that a dark theme shows around the code.
const DARK_THEME: u8 = 0x1c;
/// Cells of it that the camera sees.
const AROUND: u16 = 5;

pub fn read_qr(output: &str) -> String {
    read_qr_visible(output, 200, 80)
}

/// As [`read_qr`], from a terminal of this size: what has scrolled away is not read.
pub fn read_qr_visible(output: &str, columns: u16, lines: u16) -> String {
    let mut terminal =
        vt100::Parser::new(NonZeroU16::new(lines).unwrap(), NonZeroU16::new(columns).unwrap(), 0);
    terminal.process(output.replace('\n', "\r\n").as_bytes());
    let screen = terminal.screen();
    let cells = (0..lines).flat_map(|row| (0..columns).map(move |column| (row, column)));
    let coloured: Vec<_> = cells
        .filter_map(|(row, column)| {
            let cell = screen.cell(row, column)?;
            let lower = shade(cell.bgcolor())?;
            let upper = if cell.contents() == "▀" { shade(cell.fgcolor())? } else { lower };
            Some((row, column, upper, lower))
        })
        .collect();
    let top = coloured.iter().map(|cell| cell.0).min().expect("a code on the screen");
    let left = coloured.iter().map(|cell| cell.1).min().unwrap();
    let rows = coloured.iter().map(|cell| cell.0).max().unwrap() - top + 1 + 2 * AROUND;
    let columns = coloured.iter().map(|cell| cell.1).max().unwrap() - left + 1 + 2 * AROUND;

    let size = (u32::from(columns) * MODULE, u32::from(rows) * 2 * MODULE);
    let mut image = GrayImage::from_pixel(size.0, size.1, Luma([DARK_THEME]));
    for (row, column, upper, lower) in coloured {
        let (row, column) = (u32::from(row - top + AROUND), u32::from(column - left + AROUND));
        for (y, x) in (0..2 * MODULE).flat_map(|y| (0..MODULE).map(move |x| (y, x))) {
            let shade = if y < MODULE { upper } else { lower };
            image.put_pixel(column * MODULE + x, row * 2 * MODULE + y, Luma([shade]));
        }
    }
    decode(image)
}

/// A QR code of plain characters, light ones for light modules or for dark ones.
pub fn read_plain_qr(text: &str, light: bool) -> String {
    let rows: Vec<Vec<char>> = text.lines().map(|line| line.chars().collect()).collect();
    let width = rows.iter().map(Vec::len).max().expect("a code");
    let around = u32::from(AROUND);
    let size = ((width as u32 + 2 * around) * MODULE, (2 * rows.len() as u32 + 2 * around) * MODULE);
    let mut image = GrayImage::from_pixel(size.0, size.1, Luma([255]));
    for (row, column) in (0..rows.len()).flat_map(|row| (0..width).map(move |column| (row, column))) {
        let cell = rows[row].get(column).copied().unwrap_or(' ');
        let halves = [matches!(cell, '\u{2588}' | '\u{2580}'), matches!(cell, '\u{2588}' | '\u{2584}')];
        for (half, drawn) in halves.into_iter().enumerate() {
            let shade = if drawn == light { 255 } else { 0 };
            for (y, x) in (0..MODULE).flat_map(|y| (0..MODULE).map(move |x| (y, x))) {
                let top = (2 * row + half) as u32 + around;
                image.put_pixel((column as u32 + around) * MODULE + x, top * MODULE + y, Luma([shade]));
            }
        }
    }
    decode(image)
}

/// A QR code in a picture.
pub fn read_picture(file: &std::path::Path) -> String {
    decode(image::open(file).expect("a picture").to_luma8())
}

fn decode(image: GrayImage) -> String {
    let mut prepared = rqrr::PreparedImage::prepare(image);
    let grids = prepared.detect_grids();
    assert_eq!(grids.len(), 1, "codes on the screen");
    grids[0].decode().unwrap().1
}

fn shade(colour: vt100::Color) -> Option<u8> {
    match colour {
        vt100::Color::Idx(16) => Some(0),
        vt100::Color::Idx(231) => Some(255),
        _ => None,
    }
}
