//! Checks of what is drawn besides the inputs' own pictures: still pictures, name tags, the watermark, placeholders.

use std::time::Duration;

use super::limits::{edge, extent, share};
use super::{
    Address, Colour, DEFAULT_LOSS_WAIT, Invalid, Length, LossPolicy, LossRequest, MAX_ADDRESS,
    MAX_FILE_ID, MAX_LOSS_WAIT, MAX_NAME, NAME_PIXELS, NameRequest, NameTag, OnLoss, Picture,
    PictureRequest, Position, Spot, Watermark, WatermarkRequest, invalid,
};

/// Letters of 24 px on a canvas 960 px high.
const DEFAULT_NAME_SIZE: Length = Length::Share(2.5);
const DEFAULT_PLATE_OPACITY: f64 = 0.5;
/// As far as the contract's templates keep from the canvas's sides.
const DEFAULT_MARGIN: Length = Length::Pixels(20.0);

/// One of a file's id and an address.
pub(super) fn picture(
    file: Option<&str>,
    url: Option<&Address>,
    path: &str,
) -> Result<Picture, Invalid> {
    match (file, url) {
        (Some(file), None) => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if !(1..=MAX_FILE_ID).contains(&file.len()) || !file.chars().all(allowed) {
                let bytes = file.len();
                return invalid(
                    format!("{path}.file"),
                    format!(
                        "the id has {bytes} bytes; a file's id has 1 to {MAX_FILE_ID} of A-Z a-z 0-9 _ . -"
                    ),
                );
            }
            Ok(Picture::File(file.to_owned()))
        }
        (None, Some(url)) => address(url, &format!("{path}.url")),
        (None, None) => invalid(path, "missing; a picture needs a file or a url"),
        (Some(_), Some(_)) => invalid(path, "both file and url given; a picture is one of them"),
    }
}

/// Messages never hold the address: it may be signed.
fn address(address: &Address, path: &str) -> Result<Picture, Invalid> {
    let bytes = address.0.len();
    if bytes > MAX_ADDRESS {
        return invalid(
            path,
            format!("address of {bytes} bytes exceeds the limit of {MAX_ADDRESS}"),
        );
    }
    let url = url::Url::parse(&address.0).map_err(|e| Invalid {
        path: path.to_owned(),
        message: format!("no address: {e}"),
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        let scheme = url.scheme();
        return invalid(
            path,
            format!("pictures are fetched by http or https, not by {scheme:?}"),
        );
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid(path, "an address with a user name or password is not taken");
    }
    Ok(Picture::Url(Address(url.into())))
}

pub(super) fn asked_picture(request: &PictureRequest, path: &str) -> Result<Picture, Invalid> {
    picture(request.file.as_deref(), request.url.as_ref(), path)
}

pub(super) fn name(request: &NameRequest, path: &str) -> Result<NameTag, Invalid> {
    let at = |field: &str| format!("{path}.{field}");
    let text = request.text.trim();
    let count = text.chars().count();
    if !(1..=MAX_NAME).contains(&count) {
        return invalid(
            at("text"),
            format!("{count} characters; a name has 1 to {MAX_NAME}"),
        );
    }
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return invalid(at("text"), format!("the character {control:?} is no text"));
    }
    let size = request.size.unwrap_or(DEFAULT_NAME_SIZE);
    match size {
        Length::Pixels(v) if !NAME_PIXELS.contains(&v) => {
            let (least, most) = (NAME_PIXELS.start(), NAME_PIXELS.end());
            return invalid(
                at("size"),
                format!("{v} is outside {least} to {most} pixels"),
            );
        }
        Length::Share(v) if !(0.0..=50.0).contains(&v) || v == 0.0 => {
            return invalid(
                at("size"),
                format!("{v}% is outside 0% to 50% of the canvas"),
            );
        }
        _ => {}
    }
    let opacity = share(
        request.background_opacity,
        DEFAULT_PLATE_OPACITY,
        &at("background_opacity"),
    )?;
    Ok(NameTag {
        text: text.to_owned(),
        position: request.position.unwrap_or(Position::BottomLeft),
        size,
        colour: request.color.unwrap_or(Colour::WHITE),
        plate: Some((request.background.unwrap_or(Colour::BLACK), opacity))
            .filter(|&(_, opacity)| opacity > 0.0),
    })
}

pub(super) fn watermark(request: &WatermarkRequest) -> Result<Watermark, Invalid> {
    let at = |field: &str| format!("watermark.{field}");
    let picture = picture(request.file.as_deref(), request.url.as_ref(), "watermark")?;
    edge(request.x, &at("x"))?;
    edge(request.y, &at("y"))?;
    edge(request.margin, &at("margin"))?;
    extent(request.width, &at("width"))?;
    extent(request.height, &at("height"))?;
    let spot = match (request.x, request.y) {
        (Some(_), None) => return invalid(at("y"), "missing; x and y go together"),
        (None, Some(_)) => return invalid(at("x"), "missing; x and y go together"),
        (Some(x), Some(y)) => {
            for (field, given) in [
                ("position", request.position.is_some()),
                ("margin", request.margin.is_some()),
            ] {
                if given {
                    return invalid(at(field), "given besides x and y; one of them says where");
                }
            }
            Spot::At { x, y }
        }
        (None, None) => Spot::Near(
            request.position.unwrap_or(Position::TopRight),
            request.margin.unwrap_or(DEFAULT_MARGIN),
        ),
    };
    Ok(Watermark {
        picture,
        spot,
        width: request.width,
        height: request.height,
        opacity: share(request.opacity, 1.0, &at("opacity"))?,
    })
}

pub(super) fn on_loss(request: &LossRequest) -> Result<OnLoss, Invalid> {
    let limit = MAX_LOSS_WAIT.as_millis();
    let after = match request.after_ms {
        None => DEFAULT_LOSS_WAIT,
        Some(ms) if u128::from(ms) > limit => {
            return invalid(
                "on_loss.after_ms",
                format!("{ms} is outside 0 to {limit} ms"),
            );
        }
        Some(ms) => Duration::from_millis(u64::from(ms)),
    };
    let picture = request
        .picture
        .as_ref()
        .map(|picture| asked_picture(picture, "on_loss.picture"))
        .transpose()?;
    match (request.policy, picture) {
        (LossPolicy::Freeze, None) if request.after_ms.is_some() => {
            invalid("on_loss.after_ms", "given with freeze, which never ends")
        }
        (LossPolicy::Freeze, None) => Ok(OnLoss::Freeze),
        (LossPolicy::Hide, None) => Ok(OnLoss::Hide { after }),
        (LossPolicy::Placeholder, Some(picture)) => Ok(OnLoss::Placeholder { after, picture }),
        (LossPolicy::Placeholder, None) => invalid(
            "on_loss.picture",
            "missing; the policy placeholder shows one",
        ),
        (LossPolicy::Freeze | LossPolicy::Hide, Some(_)) => invalid(
            "on_loss.picture",
            "given without the policy placeholder, which alone shows it",
        ),
    }
}
