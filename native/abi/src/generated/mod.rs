pub mod ring;
pub mod table;
