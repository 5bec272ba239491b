//! Reads a QR code off a terminal's screen, with a decoder that shares no code with the encoder.

use std::num::NonZeroU16;

use image::{GrayImage, Luma};

/// Pixels of one module, and half of a terminal cell.
const MODULE: u32 = 4;

pub fn read_qr(output: &str) -> String {
    let (columns, lines) = (200, 80);
    let mut terminal =
        vt100::Parser::new(NonZeroU16::new(lines).unwrap(), NonZeroU16::new(columns).unwrap(), 0);
    terminal.process(output.replace('\n', "\r\n").as_bytes());
    let screen = terminal.screen();
    let mut image =
        GrayImage::from_pixel(u32::from(columns) * MODULE, u32::from(lines) * 2 * MODULE, Luma([128]));
    for (row, column) in (0..lines).flat_map(|row| (0..columns).map(move |column| (row, column))) {
        let cell = screen.cell(row, column).unwrap();
        let lower = shade(cell.bgcolor());
        let upper = if cell.contents() == "▀" { shade(cell.fgcolor()) } else { lower };
        for (y, x) in (0..2 * MODULE).flat_map(|y| (0..MODULE).map(move |x| (y, x))) {
            let shade = if y < MODULE { upper } else { lower };
            image.put_pixel(u32::from(column) * MODULE + x, u32::from(row) * 2 * MODULE + y, Luma([shade]));
        }
    }
    let mut prepared = rqrr::PreparedImage::prepare(image);
    let grids = prepared.detect_grids();
    assert_eq!(grids.len(), 1, "codes on the screen");
    grids[0].decode().unwrap().1
}

fn shade(colour: vt100::Color) -> u8 {
    match colour {
        vt100::Color::Idx(16) => 0,
        vt100::Color::Idx(231) => 255,
        _ => 128,
    }
}
