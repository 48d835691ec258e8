//! How large an object is in the log, before it is proposed.
//!
//! The size is that of a compact encoding: texts and bytes as they are, a number in its own width, and two bytes for each
//! length. The manager's real encoding differs by little; the limits leave room for it.

use std::fmt;

use serde::{Serialize, ser};

/// Most bytes of one transaction, as Docker has it.
pub const MAX_TRANSACTION_BYTES: usize = 3 << 19;

/// Most bytes of one object: the rest is for what is written with it.
pub(super) const MAX_OBJECT_BYTES: usize = MAX_TRANSACTION_BYTES - (64 << 10);

/// Most bytes of a service's spec: a service holds two of them once it has been updated.
pub(super) const MAX_SERVICE_SPEC_BYTES: usize = MAX_OBJECT_BYTES / 2;

/// The size of a value in bytes; none if its type can't be serialized.
pub(crate) fn size_of(value: &impl Serialize) -> Option<usize> {
    let mut size = Size(0);
    value.serialize(&mut size).ok().map(|()| size.0)
}

struct Size(usize);

impl Size {
    fn add(&mut self, bytes: usize) -> Result<(), fmt::Error> {
        self.0 += bytes;
        Ok(())
    }
}

/// Of a sequence, a text, a variant.
const LENGTH: usize = 2;

macro_rules! fixed {
    ($($method:ident($type:ty)),+ $(,)?) => {
        $(fn $method(self, _: $type) -> Result<(), fmt::Error> {
            self.add(std::mem::size_of::<$type>())
        })+
    };
}

impl ser::Serializer for &mut Size {
    type Ok = ();
    type Error = fmt::Error;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fixed! {
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32), serialize_i64(i64),
        serialize_i128(i128), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32), serialize_u64(u64),
        serialize_u128(u128), serialize_f32(f32), serialize_f64(f64), serialize_char(char),
    }

    fn serialize_str(self, text: &str) -> Result<(), fmt::Error> {
        self.add(LENGTH + text.len())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), fmt::Error> {
        self.add(LENGTH + bytes.len())
    }

    fn serialize_none(self) -> Result<(), fmt::Error> {
        self.add(1)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), fmt::Error> {
        self.add(1)?;
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), fmt::Error> {
        Ok(())
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, _: &'static str) -> Result<(), fmt::Error> {
        self.add(LENGTH)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), fmt::Error> {
        self.add(LENGTH)?;
        value.serialize(self)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.add(LENGTH).map(|()| self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.add(LENGTH).map(|()| self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, fmt::Error> {
        self.add(LENGTH).map(|()| self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, fmt::Error> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, fmt::Error> {
        self.add(LENGTH).map(|()| self)
    }
}

macro_rules! of_parts {
    ($($part:ident::$method:ident($($name:ty)?)),+ $(,)?) => {
        $(impl ser::$part for &mut Size {
            type Ok = ();
            type Error = fmt::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $(_: $name,)? value: &T) -> Result<(), fmt::Error> {
                value.serialize(&mut **self)
            }

            fn end(self) -> Result<(), fmt::Error> {
                Ok(())
            }
        })+
    };
}

of_parts! {
    SerializeSeq::serialize_element(),
    SerializeTuple::serialize_element(),
    SerializeTupleStruct::serialize_field(),
    SerializeTupleVariant::serialize_field(),
    SerializeStruct::serialize_field(&'static str),
    SerializeStructVariant::serialize_field(&'static str),
}

impl ser::SerializeMap for &mut Size {
    type Ok = ();
    type Error = fmt::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), fmt::Error> {
        key.serialize(&mut **self)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), fmt::Error> {
        value.serialize(&mut **self)
    }

    fn end(self) -> Result<(), fmt::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::objects::SecretSpec;

    #[test]
    fn texts_and_bytes_count_as_they_are() {
        assert_eq!(size_of(&"four"), Some(6));
        assert_eq!(size_of(&vec![7_u8; 1000]), Some(1002));
        assert_eq!(size_of(&(1_u8, Some(2_u64), None::<u8>, 'a')), Some(1 + 9 + 1 + 4));
        let secret = SecretSpec { data: vec![0; 511_999], ..SecretSpec::default() };
        let size = size_of(&secret).unwrap();
        assert!((511_999..512_100).contains(&size) && size < MAX_OBJECT_BYTES, "{size}");
    }

    #[test]
    fn every_object_has_a_size() {
        let service = fixture::replicated(1, 1);
        let task = fixture::task(2, &service, 1);
        for size in [
            size_of(&fixture::cluster()),
            size_of(&fixture::node(1)),
            size_of(&fixture::network(1)),
            size_of(&service),
            size_of(&task),
        ] {
            assert!(size.is_some_and(|size| (20..2000).contains(&size)), "{size:?}");
        }
    }
}
