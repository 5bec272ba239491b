//! The one error of every call.

use core::fmt;

use sessioncap::app::AppError;

/// An error: a code for programs, a sentence for the person, and the person's next step.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Failure {
    /// A stable name.
    pub code: String,
    /// One sentence, without a full stop.
    pub sentence: String,
    /// `ask_again`, `ask_owner`, `forget` or `update`.
    pub advice: String,
}

/// The error of every call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Error))]
pub enum Failed {
    /// The only one.
    Failed {
        /// Its code, sentence and advice.
        failure: Failure,
    },
}

impl Failed {
    pub(crate) fn wiped() -> Self {
        Self::of("wiped", "this object was wiped; make a new one")
    }

    pub(crate) fn of(code: &str, sentence: &str) -> Self {
        let (code, sentence) = (code.to_owned(), sentence.to_owned());
        Self::Failed { failure: Failure { code, sentence, advice: "ask_again".to_owned() } }
    }

    pub(crate) fn failure(self) -> Failure {
        let Self::Failed { failure } = self;
        failure
    }
}

impl From<&AppError> for Failure {
    fn from(error: &AppError) -> Self {
        Self {
            code: error.code().to_owned(),
            sentence: error.to_string(),
            advice: error.advice().code().to_owned(),
        }
    }
}

impl From<AppError> for Failed {
    fn from(error: AppError) -> Self {
        Self::Failed { failure: Failure::from(&error) }
    }
}

impl From<sessioncap::Error> for Failed {
    fn from(error: sessioncap::Error) -> Self {
        Self::of(error.code(), &error.to_string())
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Failed { failure } = self;
        f.write_str(&failure.sentence)
    }
}

impl std::error::Error for Failed {}
