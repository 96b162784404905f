//! Reads a typed configuration from an operator's string properties. Serves `init`;
//! the same reader serves operators of any contract.

use std::fmt;

use serde::de::value::SeqDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, IntoDeserializer, MapAccess, VariantAccess,
};
use serde::de::{Unexpected, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};

/// Reads a struct whose fields are named as the properties. Fields may be text,
/// numbers, `bool`, unit enums, lists (separated by commas), `Option` of these, and
/// whatever says `#[serde(try_from = "…")]` of these. A key that occurs twice has its
/// last value; a key that no field has is ignored, because a dataflow has one flat
/// list of keys for all its operators. A tuple of structs reads them all into each.
///
/// ```
/// # use tidegate_sdk::configuration::read;
/// #[derive(serde::Deserialize)]
/// struct Config {
///     limit: f64,
///     unit: Option<String>,
/// }
///
/// let config: Config = read(&[("limit", "2.5")]).unwrap();
/// assert_eq!((config.limit, config.unit), (2.5, None));
///
/// let refused = read::<Config>(&[("limit", "much")]).err().unwrap();
/// assert_eq!(refused.to_string(), "configuration key `limit`: expected a number, found `much`");
/// ```
pub fn read<C: DeserializeOwned>(
    properties: &[(impl AsRef<str>, impl AsRef<str>)],
) -> Result<C, ConfigurationError> {
    let properties: Vec<Property> =
        properties.iter().map(|(key, value)| Property { key: key.as_ref(), value: value.as_ref() }).collect();
    C::deserialize(Root { properties: &properties })
}

/// Why a configuration was refused: a text that names the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigurationError {
    /// The key whose value it is about, if it is about one value.
    key: Option<String>,
    text: String,
}

impl ConfigurationError {
    fn new(text: String) -> Self {
        ConfigurationError { key: None, text }
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            write!(f, "configuration key `{key}`: ")?;
        }
        f.write_str(&self.text)
    }
}

impl std::error::Error for ConfigurationError {}

impl serde::de::Error for ConfigurationError {
    fn custom<T: fmt::Display>(text: T) -> Self {
        ConfigurationError::new(text.to_string())
    }

    fn missing_field(field: &'static str) -> Self {
        ConfigurationError::new(format!("configuration key `{field}` is missing"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        ConfigurationError::new(format!(
            "configuration key `{field}` is unknown, expected one of {}",
            quoted(expected)
        ))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        ConfigurationError::new(format!("expected one of {}, found `{variant}`", quoted(expected)))
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[derive(Clone, Copy)]
struct Property<'p> {
    key: &'p str,
    value: &'p str,
}

/// All the properties: a struct, several in a tuple, or nothing for `()`.
#[derive(Clone, Copy)]
struct Root<'p> {
    properties: &'p [Property<'p>],
}

impl<'de> Deserializer<'de> for Root<'_> {
    type Error = ConfigurationError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_map(Values { rest: self.properties })
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    /// Each part of a tuple reads all the properties.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_seq(SeqDeserializer::new(std::iter::repeat_n(self, len)))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        option unit_struct seq tuple_struct map struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, ConfigurationError> for Root<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Key by key. Whatever goes wrong with a value is said of its key.
struct Values<'p> {
    rest: &'p [Property<'p>],
}

impl<'de> MapAccess<'de> for Values<'_> {
    type Error = ConfigurationError;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Self::Error> {
        while let Some((property, later)) = self.rest.split_first()
            && later.iter().any(|other| other.key == property.key)
        {
            self.rest = later;
        }
        let Some(property) = self.rest.first() else {
            return Ok(None);
        };
        seed.deserialize(property.key.into_deserializer()).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Self::Error> {
        let (property, later) = self.rest.split_first().expect("its key was read");
        self.rest = later;
        seed.deserialize(*property).map_err(|mut error| {
            error.key = Some(property.key.into());
            error
        })
    }
}

impl<'p> IntoDeserializer<'_, ConfigurationError> for Property<'p> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Numbers are parsed as the field's own type; `expected` is what its values are called.
macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $expected:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            let parsed: Result<$type, _> = self.value.trim().parse();
            match parsed {
                Ok(value) => visitor.$visit(value),
                Err(_) => {
                    Err(ConfigurationError::new(format!("expected {}, found `{}`", $expected, self.value)))
                }
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Property<'_> {
    type Error = ConfigurationError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_str(self.value)
    }

    parsed! {
        deserialize_bool visit_bool bool, "`true` or `false`";
        deserialize_i8 visit_i8 i8, "a whole number from -128 to 127";
        deserialize_i16 visit_i16 i16, "a whole number from -32768 to 32767";
        deserialize_i32 visit_i32 i32, "a whole number of 32 bits";
        deserialize_i64 visit_i64 i64, "a whole number of 64 bits";
        deserialize_u8 visit_u8 u8, "a whole number from 0 to 255";
        deserialize_u16 visit_u16 u16, "a whole number from 0 to 65535";
        deserialize_u32 visit_u32 u32, "a whole number of 32 bits, not negative";
        deserialize_u64 visit_u64 u64, "a whole number of 64 bits, not negative";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
        deserialize_char visit_char char, "one character";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        let items = self.value.split(',').map(str::trim).filter(|item| !item.is_empty());
        visitor.visit_seq(SeqDeserializer::new(items.map(|value| Property { key: self.key, value })))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_enum(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        Err(Self::Error::invalid_type(Unexpected::Str(self.value), &name))
    }

    forward_to_deserialize_any! {
        i128 u128 str string bytes byte_buf unit unit_struct tuple tuple_struct map identifier ignored_any
    }
}

impl<'de> EnumAccess<'de> for Property<'_> {
    type Error = ConfigurationError;
    type Variant = OnlyUnit;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, OnlyUnit), Self::Error> {
        let variant = seed.deserialize(self.value.trim().into_deserializer())?;
        Ok((variant, OnlyUnit))
    }
}

/// Text can only name variants that hold nothing.
struct OnlyUnit;

impl<'de> VariantAccess<'de> for OnlyUnit {
    type Error = ConfigurationError;

    fn unit_variant(self) -> Result<(), Self::Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _seed: S) -> Result<S::Value, Self::Error> {
        Err(Self::Error::invalid_type(Unexpected::UnitVariant, &"newtype variant"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::invalid_type(Unexpected::UnitVariant, &"tuple variant"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Self::Error> {
        Err(Self::Error::invalid_type(Unexpected::UnitVariant, &"struct variant"))
    }
}

#[cfg(test)]
mod tests;
