metadata description = 'The workbook over the findings'

@description('Azure region.')
param location string

@description('Tags.')
param tags object

@description('Resource id of Application Insights.')
param applicationInsightsId string

// The events as tables, on one line: a query is a text of JSON, and they have nothing that JSON would escape.
var events = replace(loadTextContent('../queries/parts/events.kql'), '\n', ' ')
var content = replace(loadTextContent('../workbook.json'), 'TABLES_OF_EVENTS', events)

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(applicationInsightsId, 'kubelet-guard-workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: 'AKS kubelet guard'
    category: 'workbook'
    version: 'Notebook/1.0'
    sourceId: applicationInsightsId
    serializedData: replace(content, 'APPLICATION_INSIGHTS_ID', applicationInsightsId)
  }
}
