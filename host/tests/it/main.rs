//! Whole-host tests: one binary, so that it links once.

mod mosquitto;
mod mqtt;
mod outside;
mod path;
mod tidy;

