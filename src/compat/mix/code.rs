//! The codes of mixing: numbers in the legacy form, names in the v3 form.

use std::fmt;

/// What is wrong with a request to mix. The numbers are the documents'; what they print for one thing in several ways
/// (-9 and -103 for -508, -31001 and -31002 for -30300) has one here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::compat) enum Code {
    /// No body that could be read: JSON, the interface's name, no inputs.
    Body,
    /// A parameter makes no sense, or a picture is outside the background.
    Parameter,
    /// Not 1 to 16 inputs.
    InputCount,
    /// An input makes no sense by itself.
    Input,
    /// Layers are missing, equal, or not in 1 to 16.
    Layers,
    /// Inputs do not fit the template, or a colour is none.
    Template,
    /// Fewer than two inputs.
    TooFew,
    /// The background has no size.
    Background,
    /// A crop leaves its source.
    Crop,
    /// There is no picture of that number.
    Picture,
    /// The picture of that number cannot be had.
    PictureSource,
    /// A stream is in as many mixes as it may be.
    Crowded,
    /// The kind of output does not go with its name.
    OutputKind,
    /// Another mix has the output.
    OutputTaken,
    /// An input is not live.
    NotLive,
    /// An input's size is not known.
    SizeUnknown,
    /// The session has another output.
    OutputChanged,
    /// A side is longer than 2000 pixels.
    TooLarge,
    /// It cannot be mixed now; to be tried again.
    Failed,
    /// There is no such session.
    NoSession,
    /// The session that is to end has another output.
    OtherOutput,
    /// The bitrate is outside its range.
    Bitrate,
}

impl Code {
    /// All of them, for tables and tests.
    #[cfg(test)]
    pub const ALL: [Code; 22] = [
        Code::Body,
        Code::Parameter,
        Code::InputCount,
        Code::Input,
        Code::Layers,
        Code::Template,
        Code::TooFew,
        Code::Background,
        Code::Crop,
        Code::Picture,
        Code::PictureSource,
        Code::Crowded,
        Code::OutputKind,
        Code::OutputTaken,
        Code::NotLive,
        Code::SizeUnknown,
        Code::OutputChanged,
        Code::TooLarge,
        Code::Failed,
        Code::NoSession,
        Code::OtherOutput,
        Code::Bitrate,
    ];

    /// `code` of the legacy form.
    pub const fn number(self) -> i64 {
        match self {
            Code::Body => -1,
            Code::Parameter => -2,
            Code::InputCount => -3,
            Code::Input => -4,
            Code::Layers => -11,
            Code::Template => -20,
            Code::TooFew => -21,
            Code::Background => -28,
            Code::Crop => -29,
            Code::Picture => -33,
            Code::PictureSource => -34,
            Code::Crowded => -41,
            Code::OutputKind => -111,
            Code::OutputTaken => -300,
            Code::NotLive => -505,
            Code::SizeUnknown => -507,
            Code::OutputChanged => -508,
            Code::TooLarge => -10_021,
            Code::Failed => -10_031,
            Code::NoSession => -30_300,
            Code::OtherOutput => -31_003,
            Code::Bitrate => -31_004,
        }
    }

    /// `Code` of the v3 form; `None`: it has no name of its own there.
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Code::NotLive => "FailedOperation.StreamNotExist",
            Code::SizeUnknown => "FailedOperation.GetStreamResolutionError",
            Code::PictureSource => "FailedOperation.GetPictureUrlError",
            Code::Failed => "FailedOperation.ProcessMixError",
            Code::NoSession | Code::OtherOutput => "FailedOperation.CancelSessionNotExist",
            Code::OutputTaken => "InvalidParameter.InvalidOutputStreamID",
            Code::OutputChanged => "InvalidParameter.SessionOutputStreamChanged",
            Code::Template => "InvalidParameter.TemplateNotMatchInputNum",
            Code::Layers => "InvalidParameter.InvalidLayerParam",
            Code::Crop => "InvalidParameter.InvalidCropParam",
            // As the vendor spells it.
            Code::Background => "InvalidParameter.InvalidBackgroudResolution",
            Code::Picture => "InvalidParameter.InvalidPictureID",
            Code::Bitrate => "InvalidParameter.InvalidBitrate",
            Code::OutputKind => "InvalidParameter.InvalidOutputType",
            Code::InputCount => "InvalidParameter.InputNumLimitExceeded",
            Code::Body
            | Code::Parameter
            | Code::Input
            | Code::TooFew
            | Code::Crowded
            | Code::TooLarge => return None,
        })
    }

    /// The refusal with that sentence.
    pub fn because(self, message: impl Into<String>) -> Refusal {
        Refusal {
            code: self,
            message: message.into(),
        }
    }
}

/// Why a request to mix was not granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::compat) struct Refusal {
    pub code: Code,
    /// For people; never with a secret in it.
    pub message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.number())
    }
}
