/**
 * Typed access to the fields of a parsed document. `where` names the object in messages ("Manifest", "Layer 2 of the
 * manifest"); a field that is missing where it may be is undefined, a field of the wrong type is always refused.
 */

import { HostctlError } from '../../errors.ts';
import { isJsonObject, type JsonObject, type JsonValue } from './json.ts';

export function optionalString(object: JsonObject, name: string, where: string): string | undefined {
  const value = object.get(name);
  if (value === undefined || typeof value === 'string') return value;
  throw wrongType(name, where, 'a string');
}

export function requiredString(object: JsonObject, name: string, where: string): string {
  return present(optionalString(object, name, where), name, where);
}

export function optionalObject(object: JsonObject, name: string, where: string): JsonObject | undefined {
  const value = object.get(name);
  if (value === undefined || isJsonObject(value)) return value;
  throw wrongType(name, where, 'an object');
}

export function requiredObject(object: JsonObject, name: string, where: string): JsonObject {
  return present(optionalObject(object, name, where), name, where);
}

export function requiredArray(object: JsonObject, name: string, where: string): readonly JsonValue[] {
  const value = object.get(name);
  if (Array.isArray(value)) return value as readonly JsonValue[];
  if (value === undefined) throw missing(name, where);
  throw wrongType(name, where, 'an array');
}

/** A size: an integer from 0 to 2^53-1. */
export function requiredSize(object: JsonObject, name: string, where: string): number {
  const value = present(object.get(name), name, where);
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value;
  throw wrongType(name, where, 'a size');
}

/** A map of strings; null counts as absent, since Go writes an empty map so. */
export function optionalStringMap(object: JsonObject, name: string, where: string): ReadonlyMap<string, string> {
  const value = object.get(name) === null ? undefined : optionalObject(object, name, where);
  const result = new Map<string, string>();
  for (const [key, text] of value ?? []) {
    if (typeof text !== 'string') throw wrongType(`${name}.${key}`, where, 'a string');
    result.set(key, text);
  }
  return result;
}

/** Refuses a document that does not state schema version 2. */
export function checkSchemaVersion(object: JsonObject, where: string): void {
  const version = object.get('schemaVersion');
  if (version === 2) return;
  if (version === 1) {
    throw new HostctlError('image-unsupported', `${where} is of Docker schema 1`, {
      hint: 'Push the image again with a current tool.',
    });
  }
  throw new HostctlError('image-invalid', `${where} does not state "schemaVersion" 2`);
}

function present<T>(value: T | undefined, name: string, where: string): T {
  if (value === undefined) throw missing(name, where);
  return value;
}

function missing(name: string, where: string): HostctlError {
  return new HostctlError('image-invalid', `${where} has no "${name}"`);
}

function wrongType(name: string, where: string, type: string): HostctlError {
  return new HostctlError('image-invalid', `${where} has a field ${JSON.stringify(name)} that is not ${type}`);
}
