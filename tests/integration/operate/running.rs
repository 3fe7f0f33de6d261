//! How the server starts, goes on and stops, as a service manager and an operator see it.

mod drain;
mod notify;
mod overload;
mod upgrade;
