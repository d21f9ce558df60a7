/** Results as YAML; a file of its own because the library behind it is large and seldom needed. */

export { stringify } from 'yaml';
